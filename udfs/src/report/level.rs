//! The rate of false alarms, alpha, at which a page flags outliers.

use std::fmt;

use datafusion::common::{Result, plan_datafusion_err};
use wae_core::calibrate::{Guarantee, HeldOut};

use super::chart::short;
use crate::scalar::alpha::DEFAULT_ALPHA;

/// A rate of false alarms, and the confidence with which it holds, as given or by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    alpha: f64,
    confidence: Option<f64>,
    /// The number of held-out rows, where none is given and they are too few for the default: alpha is the smallest rate
    /// that they can keep.
    few: Option<usize>,
}

impl Level {
    /// The rate for a model's held-out rows; `None` for a model without them. SQL refuses a rate that no row can reach.
    ///
    /// # Errors
    /// A plan error for a rate that does not lie between 0 and 1.
    pub(super) fn try_new(
        alpha: Option<f64>,
        confidence: Option<f64>,
        held_out: Option<&HeldOut>,
    ) -> Result<Option<Self>> {
        let guarantee = Guarantee::try_new(alpha.unwrap_or(DEFAULT_ALPHA), confidence)
            .map_err(|error| plan_datafusion_err!("report: {error}"))?;
        Ok(held_out.map(|held_out| {
            let rows = held_out.len();
            match alpha {
                None if guarantee.ranks(rows) == 0 => {
                    Self { alpha: smallest_rate(rows, confidence), confidence, few: Some(rows) }
                }
                _ => Self { alpha: guarantee.alpha(), confidence, few: None },
            }
        }))
    }

    /// A rate that was given.
    #[cfg(test)]
    pub(super) fn of_rate(alpha: f64) -> Self {
        Self { alpha, confidence: None, few: None }
    }

    /// The rate as a number.
    pub(super) fn alpha(self) -> f64 {
        self.alpha
    }

    /// The probability with which the rate holds for the calibration rows at hand; `None` where it holds on average.
    pub(super) fn confidence(self) -> Option<f64> {
        self.confidence
    }

    /// The rate with its confidence; both lie between 0 and 1.
    pub(super) fn guarantee(self) -> Option<Guarantee> {
        Guarantee::try_new(self.alpha, self.confidence).ok()
    }

    /// The sentences that say why the rate is not the default; nothing where it is, or is given.
    pub(super) fn reason(self) -> Option<String> {
        let rows = self.few?;
        let needed = Guarantee::try_new(DEFAULT_ALPHA, self.confidence).ok()?.least_rows();
        let smallest = match self.confidence {
            None => format!("1/({rows} + 1) here, the smallest p-value that it can give"),
            Some(_) => format!("{self} here, the smallest rate that it can keep"),
        };
        Some(format!(
            "No α was given. The default, {DEFAULT_ALPHA}, takes {needed} calibration rows, and this model has {rows}: α is \
             {smallest}."
        ))
    }
}

/// The smallest rate at which one of so many rows can be an outlier.
fn smallest_rate(rows: usize, confidence: Option<f64>) -> f64 {
    match confidence {
        // The number above it: 1/(n + 1) may be rounded down, below all p-values.
        None => (1.0 / (rows + 1) as f64).next_up(),
        // 1 − (1 − c)^(1/n), and a trifle more than rounding, but below 1.
        Some(confidence) => {
            let least = -((-confidence).ln_1p() / rows as f64).exp_m1();
            (least * (1.0 + 1e-9)).min(1.0_f64.next_down())
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.few, self.confidence) {
            (Some(rows), None) => write!(f, "1/{}", rows + 1),
            (Some(_), Some(_)) => f.write_str(&short(self.alpha)),
            (None, _) => write!(f, "{}", self.alpha),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use wae_core::calibrate::{Calibration, Score};

    use super::*;

    fn level(alpha: Option<f64>, confidence: Option<f64>, rows: usize) -> Level {
        let calibration = Calibration::try_new(vec![1.0; rows]).unwrap();
        Level::try_new(alpha, confidence, calibration.scores(Score::Cost)).unwrap().unwrap()
    }

    #[rstest]
    #[case::on_average(None, 99)]
    #[case::with_confidence(Some(0.95), 299)]
    fn the_smallest_rate_reaches_one_rank_and_no_second(#[case] confidence: Option<f64>, #[case] enough: usize) {
        for rows in 1..enough {
            let level = level(None, confidence, rows);
            assert_eq!(level.guarantee().unwrap().ranks(rows), 1, "{rows}: {level:?}");
            assert!(level.reason().unwrap().contains(&format!("takes {enough} calibration rows")));
        }
        assert_eq!(level(None, confidence, enough).reason(), None);
        assert_eq!(level(None, confidence, enough).alpha(), 0.01);
        assert_eq!(level(Some(0.01), confidence, 48), Level { alpha: 0.01, confidence, few: None });
    }

    #[test]
    fn a_rate_as_text() {
        let few = level(None, None, 48);
        assert_eq!(few.to_string(), "1/49");
        assert!(few.reason().unwrap().contains("α is 1/(48 + 1) here"));
        assert_eq!(level(Some(0.05), None, 48).to_string(), "0.05");
        // 1 − 0.05^(1/28) = 0.1015.
        let confident = level(None, Some(0.95), 28);
        assert!((confident.alpha() - 0.1015).abs() < 1e-4, "{confident:?}");
        assert!(confident.reason().unwrap().contains(&format!("α is {confident} here, the smallest rate")));
    }

    #[test]
    fn the_smallest_rate_is_below_1() {
        for confidence in [1.0 - 1e-12, 1.0_f64.next_down()] {
            assert!(level(None, Some(confidence), 1).guarantee().is_some());
        }
    }

    #[test]
    fn rates_lie_between_0_and_1() {
        for alpha in [0.0, 1.0, f64::NAN, -0.1] {
            let error = Level::try_new(Some(alpha), None, None).unwrap_err().strip_backtrace();
            assert!(error.contains("report: alpha must be between 0 and 1, both excluded, got"), "{error}");
        }
        assert_eq!(Level::try_new(Some(0.05), None, None).unwrap(), None);
    }
}
