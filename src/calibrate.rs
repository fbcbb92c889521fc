//! Conformal p-values: the share of held-out rows that score at least as high as a row.
//!
//! `p(s) = (1 + #{i : s_i ≥ s}) / (1 + n)`
//!
//! Where: s_1..s_n are the held-out rows' scores. If a new row is exchangeable with the held-out ones, P(p ≤ α) ≤ α for
//! every α, on average over draws of the held-out rows. Training rows cannot calibrate: the model fits them better than
//! new ones.
//!
//! # Source
//! Bates, Candès, Lei, Romano and Sesia, Testing for outliers with conformal p-values, arXiv 2104.08279, equation 2.

mod anomaly;
mod guarantee;
mod latent;

pub use self::anomaly::{AnomalyFields, AnomalyStatistics};
pub(crate) use self::anomaly::{Covariance, TrainingSizes, UsualSums};
pub use self::guarantee::Guarantee;
pub use self::latent::LatentStatistics;
pub use crate::config::Score;
use crate::error::{Error, Result};

/// The held-out rows' scores, of as many kinds as were computed for them.
///
/// # Example
/// ```
/// use wae_core::calibrate::{Calibration, Score};
///
/// let calibration = Calibration::try_new(vec![3.0, 1.0, 2.0]).unwrap();
/// let costs = calibration.scores(Score::Cost).unwrap();
/// assert_eq!(costs.p_value(2.0), 0.75); // two of three are at least as large
/// assert_eq!(costs.p_value(9.0), costs.smallest_p());
/// assert!(calibration.scores(Score::AnomalyScore).is_none());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    costs: HeldOut,
    latent_distances: Option<HeldOut>,
    anomalies: Option<HeldOut>,
}

impl Calibration {
    /// A calibration of reconstruction costs alone.
    ///
    /// # Errors
    /// [`Error::Data`] if there are none, or one is not finite.
    pub fn try_new(costs: Vec<f32>) -> Result<Self> {
        Ok(Self { costs: HeldOut::try_new(costs)?, latent_distances: None, anomalies: None })
    }

    /// Adds the scores of another kind, of the same rows.
    ///
    /// # Errors
    /// [`Error::Data`] if they are not as many as the costs, or one is not finite.
    pub fn with_scores(mut self, score: Score, scores: Vec<f32>) -> Result<Self> {
        if scores.len() != self.len() {
            return Err(Error::Data(format!(
                "calibration has {} costs and {} values of {}",
                self.len(),
                scores.len(),
                score.name()
            )));
        }
        let scores = HeldOut::try_new(scores)?;
        match score {
            Score::Cost => self.costs = scores,
            Score::LatentDistance => self.latent_distances = Some(scores),
            Score::AnomalyScore => self.anomalies = Some(scores),
        }
        Ok(self)
    }

    /// The number of held-out rows, n.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.costs.len()
    }

    /// The scores of one kind; a file of an older version has costs alone.
    pub fn scores(&self, score: Score) -> Option<&HeldOut> {
        match score {
            Score::Cost => Some(&self.costs),
            Score::LatentDistance => self.latent_distances.as_ref(),
            Score::AnomalyScore => self.anomalies.as_ref(),
        }
    }

    /// Every kind of scores that there is.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Score, &HeldOut)> {
        Score::ALL.into_iter().filter_map(|(_, score)| Some((score, self.scores(score)?)))
    }
}

/// Scores of held-out rows, sorted.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut(Vec<f32>);

/// The scale of anomaly scores as they are reported: from 0 to 1, and ½ is the threshold of an outlier at α = 0.01.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// ½ (1 + d/(1 + |d|)), d = f − f₀: of the anomaly map's values f. f₀ is the threshold. A logistic function would
    /// round to 1, and lose the order of strange images.
    Centred(f32),
    /// s/(s + t): of the structural costs s of a file of format `wae/1`. t is the threshold.
    Ratio(f32),
}

impl Scale {
    /// A score as it is reported. Higher is stranger; NaN is strangest.
    pub fn of(self, score: f32) -> f32 {
        let (threshold, scaled) = match self {
            Self::Centred(threshold) => {
                let distance = f64::from(score) - f64::from(threshold);
                let share = if distance.is_finite() { distance / (1.0 + distance.abs()) } else { distance.signum() };
                (threshold, (0.5 * (1.0 + share)) as f32)
            }
            Self::Ratio(threshold) => {
                // Rounding can leave a score of nothing just below 0.
                let score = if score < 0.0 { 0.0 } else { score };
                (threshold, score / (score + threshold))
            }
        };
        match score {
            score if score.is_nan() => 1.0,
            // The quotient of a score just above the threshold may round to ½, which would contradict its p-value.
            score if score > threshold => scaled.max(0.5_f32.next_up()),
            _ => scaled,
        }
    }
}

/// A held-out score that outliers exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold(f32);

impl Threshold {
    /// The score.
    pub fn value(self) -> f32 {
        self.0
    }

    /// Whether a score is an outlier's, which NaN is, as its p-value is the smallest.
    pub fn is_exceeded_by(self, score: f32) -> bool {
        score.is_nan() || score > self.0
    }
}

impl HeldOut {
    fn try_new(mut scores: Vec<f32>) -> Result<Self> {
        if scores.is_empty() {
            return Err(Error::Data("calibration needs at least one held-out row, got 0".to_owned()));
        }
        if let Some(score) = scores.iter().find(|s| !s.is_finite()) {
            return Err(Error::Data(format!("calibration needs finite scores, got {score}")));
        }
        scores.sort_by(f32::total_cmp);
        Ok(Self(scores))
    }

    /// The number of held-out rows, n.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The scores in ascending order.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The p-value of a score, in [1/(n + 1), 1]. NaN has the smallest one.
    pub fn p_value(&self, score: f32) -> f64 {
        let below = if score.is_nan() { self.len() } else { self.0.partition_point(|s| *s < score) };
        (1 + self.len() - below) as f64 / (1 + self.len()) as f64
    }

    /// The smallest p-value that n rows can give, 1/(n + 1).
    pub fn smallest_p(&self) -> f64 {
        1.0 / (1 + self.len()) as f64
    }

    /// The score above which a row is an outlier: the k-th largest, where k are the ranks of the guarantee. `None` where
    /// no row can be one.
    pub fn threshold(&self, guarantee: Guarantee) -> Option<Threshold> {
        let ranks = guarantee.ranks(self.len());
        (ranks > 0).then(|| Threshold(self.0[self.len() - ranks]))
    }

    /// The score of ½ as it is reported: the threshold at α = 0.01. Fewer than 99 rows have no such threshold: it is their
    /// largest score.
    pub fn half(&self) -> f32 {
        self.threshold(Guarantee::OF_HALF).map(Threshold::value).or(self.0.last().copied()).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn held_out(scores: Vec<f32>) -> HeldOut {
        HeldOut::try_new(scores).unwrap()
    }

    #[rstest]
    #[case::below_all(0.5, 1.0)]
    #[case::equal_to_the_smallest(1.0, 1.0)]
    #[case::a_tie_counts(2.0, 0.8)]
    #[case::equal_to_the_largest(4.0, 0.4)]
    #[case::above_all(4.5, 0.2)]
    #[case::not_a_number(f32::NAN, 0.2)]
    fn p_values_by_hand(#[case] cost: f32, #[case] p: f64) {
        // Four rows: (1 + #{≥ cost}) / 5, where 2.0 is met by 2.0, 2.0 and 4.0.
        assert_eq!(held_out(vec![4.0, 1.0, 2.0, 2.0]).p_value(cost), p);
    }

    #[test]
    fn refuses_what_cannot_be_ranked() {
        assert!(Calibration::try_new(vec![]).is_err());
        assert!(Calibration::try_new(vec![1.0, f32::NAN]).is_err());
        let error = Calibration::try_new(vec![1.0]).unwrap().with_scores(Score::AnomalyScore, vec![1.0, 2.0]);
        assert_eq!(error.unwrap_err().to_string(), "calibration has 1 costs and 2 values of anomaly_score");
    }

    /// Exchangeable scores: over all ranks of a new row among n, P(p ≤ α) is ⌊α(n + 1)⌋/(n + 1).
    #[test]
    fn false_alarms_are_at_most_alpha() {
        let n = 99;
        for alpha in [0.01, 0.05, 0.1] {
            let mut alarms = 0;
            for new in 0..=n {
                let others = (0..=n).filter(|i| *i != new).map(|i| i as f32).collect();
                alarms += usize::from(held_out(others).p_value(new as f32) <= alpha);
            }
            assert_eq!(alarms, (alpha * (n + 1) as f64) as usize);
        }
    }

    /// p ≤ α above the threshold and only there, for rates that p-values reach exactly and others.
    #[rstest]
    #[case(0.01)]
    #[case(0.013)]
    #[case(0.05)]
    #[case(0.5)]
    #[case(0.999)]
    fn a_threshold_is_where_p_reaches_alpha(#[case] alpha: f64) {
        let scores = held_out((0..99).map(|i| (i / 2) as f32).collect());
        let guarantee = |alpha| Guarantee::try_new(alpha, None).unwrap();
        let threshold = scores.threshold(guarantee(alpha)).unwrap();
        for score in (-1..52).map(|i| i as f32).chain([f32::NAN]) {
            let is_outlier = threshold.is_exceeded_by(score);
            assert_eq!(scores.p_value(score) <= alpha, is_outlier, "{score}, threshold {threshold:?}");
        }
        assert_eq!(scores.threshold(guarantee(0.009)), None, "99 rows cannot give a p-value below 0.01");
    }

    /// 1 − 0.9²⁹ is above 0.95 and 1 − 0.9²⁸ below; two ranks take 46 rows.
    #[rstest]
    #[case(28, None)]
    #[case(29, Some(29.0))]
    #[case(45, Some(45.0))]
    #[case(46, Some(45.0))]
    fn a_confident_threshold_is_higher(#[case] rows: i32, #[case] expected: Option<f32>) {
        let scores = held_out((1..=rows).map(|i| i as f32).collect());
        let confident = Guarantee::try_new(0.1, Some(0.95)).unwrap();
        assert_eq!(scores.threshold(confident).map(Threshold::value), expected);
    }

    #[test]
    fn half_is_the_threshold() {
        let scores = held_out((1..=99).map(|i| i as f32).collect());
        let threshold = scores.threshold(Guarantee::OF_HALF).map(Threshold::value);
        assert_eq!((threshold, scores.half()), (Some(99.0), 99.0));
        assert_eq!(held_out(vec![1.0, 3.0]).half(), 3.0);
        let ratio = Scale::Ratio(99.0);
        assert_eq!((ratio.of(99.0), ratio.of(-1e-9)), (0.5, 0.0));
        assert_eq!(Scale::Ratio(3.0).of(9.0), 0.75);
        assert!(ratio.of(99_f32.next_up()) > 0.5);
    }

    #[test]
    fn a_centred_scale_by_hand() {
        let scale = Scale::Centred(2.0);
        assert_eq!([2.0, 3.0, 1.0, 5.0].map(|f| scale.of(f)), [0.5, 0.75, 0.25, 0.875]);
        assert!(scale.of(2_f32.next_up()) > 0.5);
        assert_eq!([f32::INFINITY, f32::NEG_INFINITY, f32::NAN].map(|f| scale.of(f)), [1.0, 0.0, 1.0]);
        // Strange images keep their order.
        assert!(scale.of(2000.0) < scale.of(2100.0) && scale.of(2100.0) < 1.0);
    }
}
