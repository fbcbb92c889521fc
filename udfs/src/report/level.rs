//! The rate of false alarms, alpha, at which a page flags outliers.

use std::fmt;

use datafusion::common::{Result, plan_err};
use wae_core::calibrate::HeldOut;

use crate::scalar::wae_is_outlier::DEFAULT_ALPHA;

/// Held-out rows from which on a p-value can be as small as [`DEFAULT_ALPHA`].
const ENOUGH: usize = 99;

/// A rate of false alarms, as given or by default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Level {
    /// A rate that was given, or the default. SQL refuses one that no p-value can reach.
    Rate(f64),
    /// 1/(n + 1), the smallest p-value of n held-out rows: none is given, and they are too few for the default.
    Smallest(usize),
}

impl Level {
    /// The rate for a model's held-out rows; `None` for a model without them.
    ///
    /// # Errors
    /// A plan error for a rate that does not lie between 0 and 1.
    pub(super) fn try_new(alpha: Option<f64>, held_out: Option<&HeldOut>) -> Result<Option<Self>> {
        if let Some(alpha) = alpha
            && !(alpha > 0.0 && alpha < 1.0)
        {
            return plan_err!("report: alpha must be between 0 and 1, both excluded, got {alpha}");
        }
        Ok(held_out.map(|held_out| match alpha {
            Some(alpha) => Self::Rate(alpha),
            None if held_out.len() < ENOUGH => Self::Smallest(held_out.len()),
            None => Self::Rate(DEFAULT_ALPHA),
        }))
    }

    /// The rate as a number.
    pub(super) fn alpha(self) -> f64 {
        match self {
            Self::Rate(alpha) => alpha,
            // The number above it: 1/(n + 1) may be rounded down, below all p-values.
            Self::Smallest(rows) => (1.0 / (rows + 1) as f64).next_up(),
        }
    }

    /// The sentences that say why the rate is not the default; nothing where it is, or is given.
    pub(super) fn reason(self) -> Option<String> {
        match self {
            Self::Rate(_) => None,
            Self::Smallest(rows) => Some(format!(
                "No α was given. The default, {DEFAULT_ALPHA}, takes {ENOUGH} calibration rows, and this model has \
                 {rows}: α is 1/({rows} + 1) here, the smallest p-value that it can give."
            )),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(alpha) => write!(f, "{alpha}"),
            Self::Smallest(rows) => write!(f, "1/{}", rows + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use wae_core::calibrate::{Calibration, Score};

    use super::*;

    #[test]
    fn the_smallest_rate_reaches_one_rank_and_no_second() {
        for rows in 1..ENOUGH {
            let alpha = Level::Smallest(rows).alpha();
            let ranks = (rows + 1) as f64;
            // 1/49 is rounded down: 49 times it is below 1.
            assert!(alpha * ranks >= 1.0 && alpha < 2.0 / ranks, "{rows}: {alpha}");
        }
        assert_eq!(Level::Smallest(48).to_string(), "1/49");
        assert!(Level::Smallest(48).reason().unwrap().contains("α is 1/(48 + 1) here"));
        assert_eq!(Level::Rate(0.05).to_string(), "0.05");
    }

    #[test]
    fn few_rows_lower_the_default_and_no_other_rate() {
        let level = |alpha, rows| {
            let calibration = Calibration::try_new(vec![1.0; rows]).unwrap();
            Level::try_new(alpha, calibration.scores(Score::Cost)).unwrap().unwrap()
        };
        assert_eq!([level(None, 98), level(None, 99)], [Level::Smallest(98), Level::Rate(0.01)]);
        assert_eq!(level(Some(0.01), 98), Level::Rate(0.01));
        assert_eq!(level(None, 99).reason(), None);
    }

    #[test]
    fn rates_lie_between_0_and_1() {
        for alpha in [0.0, 1.0, f64::NAN, -0.1] {
            assert!(Level::try_new(Some(alpha), None).is_err(), "{alpha}");
        }
        assert_eq!(Level::try_new(Some(0.05), None).unwrap(), None);
    }
}
