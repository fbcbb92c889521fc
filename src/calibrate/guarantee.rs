//! The promise of a verdict: a rate of false alarms of at most α.
//!
//! On average over draws of the n held-out rows, P(p ≤ α) ≤ α. With a confidence c, the rate holds for the draw at hand
//! with a probability of at least c: an outlier then is a row with p ≤ k/(n + 1), and
//!
//! ```text
//! k = max {j : P(Beta(j, n + 1 − j) ≤ α) ≥ c} = max {j : P(Binomial(n, α) < j) ≤ 1 − c}
//! ```
//!
//! Where: Beta(j, n + 1 − j) is the distribution, over draws, of the rate of false alarms of p ≤ j/(n + 1); ties among
//! scores lower the rate. It holds for held-out rows that are drawn independently of each other: frames of one video are
//! not. Both forms of k are the same (n uniform draws have j below α or they do not), and the second is a finite sum, so
//! that no special function is needed.
//!
//! # Source
//! Vovk, Conditional validity of inductive conformal predictors, ACML 2012 (training conditional validity).

use crate::error::{Error, Result};

/// A rate of false alarms, and the confidence with which it holds.
///
/// # Example
/// ```
/// use wae_core::calibrate::Guarantee;
///
/// let on_average = Guarantee::try_new(0.01, None)?;
/// assert_eq!((on_average.ranks(99), on_average.least_rows()), (1, 99));
/// let confident = Guarantee::try_new(0.01, Some(0.95))?;
/// assert_eq!((confident.ranks(298), confident.ranks(299), confident.least_rows()), (0, 1, 299));
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guarantee {
    alpha: f64,
    confidence: Option<f64>,
}

impl Guarantee {
    /// The threshold of an anomaly score of ½.
    pub(super) const OF_HALF: Self = Self { alpha: 0.01, confidence: None };

    /// At most a rate `alpha` of false alarms: on average over draws of the held-out rows, or with a probability of at
    /// least `confidence` for the draw at hand.
    ///
    /// # Errors
    /// [`Error::Config`] if one of the two does not lie between 0 and 1, both excluded.
    pub fn try_new(alpha: f64, confidence: Option<f64>) -> Result<Self> {
        for (name, value) in [("alpha", Some(alpha)), ("confidence", confidence)] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && *value < 1.0)) {
                return Err(Error::Config(format!("{name} must be between 0 and 1, both excluded, got {value}")));
            }
        }
        Ok(Self { alpha, confidence })
    }

    /// The rate of false alarms.
    pub fn alpha(self) -> f64 {
        self.alpha
    }

    /// k, the number of ranks among n held-out rows that make an outlier: p ≤ k/(n + 1). 0 where no row can be one.
    pub fn ranks(self, rows: usize) -> usize {
        match self.confidence {
            None => ranks_on_average(self.alpha, rows),
            Some(confidence) => ranks_with_confidence(self.alpha, confidence, rows),
        }
    }

    /// The least number of held-out rows with which a row can be an outlier; 2⁵³ or one more where it is more than 2⁵³.
    pub fn least_rows(self) -> usize {
        let about = match self.confidence {
            None => 1.0 / self.alpha - 1.0,
            Some(confidence) => (-confidence).ln_1p() / (-self.alpha).ln_1p(),
        };
        // Beyond 2⁵³, neighbouring integers are one f64.
        let about = about.clamp(1.0, (1_u64 << 53) as f64).ceil() as usize;
        // The quotient may be rounded across an integer.
        (about - 1..=about + 1).find(|rows| self.ranks(*rows) > 0).unwrap_or(about)
    }
}

/// ⌊α(n + 1)⌋, compared as p itself is, so that the two agree where α(n + 1) is a whole number up to rounding.
fn ranks_on_average(alpha: f64, rows: usize) -> usize {
    let of = (rows + 1) as f64;
    let about = (alpha * of) as usize;
    let candidates = about.saturating_sub(1)..=(about + 1).min(rows);
    candidates.rev().find(|k| *k as f64 / of <= alpha).unwrap_or(0)
}

fn ranks_with_confidence(alpha: f64, confidence: f64, rows: usize) -> usize {
    let n = rows as f64;
    let log_odds = alpha.ln() - (-alpha).ln_1p();
    // ln P(Binomial(n, α) = k), which fits where the probability itself would be rounded to 0.
    let mut log_probability = n * (-alpha).ln_1p();
    let mut at_most = 0.0;
    for k in 0..rows {
        at_most += log_probability.exp();
        if at_most > 1.0 - confidence {
            return k;
        }
        log_probability += ((rows - k) as f64 / (k + 1) as f64).ln() + log_odds;
    }
    rows
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn guarantee(alpha: f64, confidence: f64) -> Guarantee {
        Guarantee::try_new(alpha, Some(confidence)).unwrap()
    }

    /// Of n = 1, 2 and 3 rows: P(Binomial(n, ½) < j) is ½, 1 / ¼, ¾ / ⅛, ½, ⅞.
    #[rstest]
    #[case::one(1, 0.49, 1)]
    #[case::one_is_not_enough(1, 0.51, 0)]
    #[case::two(2, 0.74, 1)]
    #[case::two_less_sure(2, 0.24, 2)]
    #[case::three(3, 0.49, 2)]
    #[case::three_surer(3, 0.87, 1)]
    #[case::no_rows(0, 0.5, 0)]
    fn ranks_by_hand(#[case] rows: usize, #[case] confidence: f64, #[case] ranks: usize) {
        assert_eq!(guarantee(0.5, confidence).ranks(rows), ranks);
    }

    /// The largest k with `scipy.stats.beta.cdf(alpha, k, n + 1 - k) >= confidence`, SciPy 1.17.
    #[rstest]
    #[case(0.01, 0.95, 298, 0)]
    #[case(0.01, 0.95, 299, 1)]
    #[case(0.01, 0.95, 1000, 5)]
    #[case(0.05, 0.95, 100, 2)]
    #[case(0.1, 0.9, 420, 34)]
    #[case(0.1, 0.99, 420, 28)]
    #[case(0.05, 0.5, 999, 50)]
    #[case(0.01, 0.999, 10_000, 71)]
    #[case(0.2, 0.95, 1_000_000, 199_342)]
    #[case(0.99, 0.95, 50, 48)]
    fn ranks_by_scipy(#[case] alpha: f64, #[case] confidence: f64, #[case] rows: usize, #[case] ranks: usize) {
        assert_eq!(guarantee(alpha, confidence).ranks(rows), ranks);
    }

    /// 1 − 0.99²⁹⁹ is the first above 0.95, and 1 − 0.95⁵⁹; without a confidence 1/(n + 1) = α.
    #[rstest]
    #[case(0.01, Some(0.95), 299)]
    #[case(0.05, Some(0.95), 59)]
    #[case(0.5, Some(0.49), 1)]
    #[case(0.5, Some(0.74), 2)]
    #[case(0.9, Some(0.1), 1)]
    #[case(0.01, None, 99)]
    #[case(0.001, None, 999)]
    #[case(0.5, None, 1)]
    #[case(0.6, None, 1)]
    fn least_rows_by_hand(#[case] alpha: f64, #[case] confidence: Option<f64>, #[case] rows: usize) {
        let guarantee = Guarantee::try_new(alpha, confidence).unwrap();
        assert_eq!(guarantee.least_rows(), rows);
        assert_eq!((guarantee.ranks(rows - 1), guarantee.ranks(rows) > 0), (0, true));
    }

    #[test]
    fn the_least_rows_are_the_first_that_reach_a_rank() {
        for confidence in [None, Some(0.5), Some(0.9), Some(0.99)] {
            for alpha in (1..200).map(|i| 1.0 / f64::from(i) * 0.999).chain((2..200).map(|i| 1.0 / f64::from(i))) {
                let guarantee = Guarantee::try_new(alpha, confidence).unwrap();
                let rows = guarantee.least_rows();
                assert!(guarantee.ranks(rows) > 0 && guarantee.ranks(rows - 1) == 0, "{guarantee:?}: {rows}");
            }
        }
        // A rate that no table of rows reaches has a number, too.
        assert!(Guarantee::try_new(1e-300, None).unwrap().least_rows() >= 1 << 53);
        assert!(guarantee(1e-300, 0.95).least_rows() >= 1 << 53);
    }

    #[rstest]
    #[case(0.0, None, "alpha must be between 0 and 1, both excluded, got 0")]
    #[case(f64::NAN, None, "alpha must be between 0 and 1, both excluded, got NaN")]
    #[case(0.1, Some(1.0), "confidence must be between 0 and 1, both excluded, got 1")]
    #[case(0.1, Some(f64::NAN), "confidence must be between 0 and 1, both excluded, got NaN")]
    fn rates_lie_between_0_and_1(#[case] alpha: f64, #[case] confidence: Option<f64>, #[case] message: &str) {
        let error = Guarantee::try_new(alpha, confidence).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
