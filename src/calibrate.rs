//! Conformal p-values: how strange a score is among rows that the model was not trained on.
//!
//! `p(s) = (1 + #{i : s_i ≥ s}) / (1 + n)`
//!
//! Where: s_1..s_n are the held-out rows' scores. If a new row is exchangeable with the held-out ones, P(p ≤ α) ≤ α for
//! every α, on average over draws of the held-out rows. Training rows cannot calibrate: the model fits them better than
//! new ones.
//!
//! # Source
//! Bates, Candès, Lei, Romano and Sesia, Testing for outliers with conformal p-values, arXiv 2104.08279, equation 2.

use crate::error::{Error, Result};

/// The held-out rows' scores, sorted.
///
/// # Example
/// ```
/// use wae_core::Calibration;
///
/// let calibration = Calibration::try_new(vec![3.0, 1.0, 2.0]).unwrap();
/// assert_eq!(calibration.p_value(2.0), 0.75); // two of three are at least as large
/// assert_eq!(calibration.p_value(9.0), calibration.smallest_p());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    costs: Vec<f32>,
}

impl Calibration {
    /// Sorts the reconstruction costs of held-out rows.
    ///
    /// # Errors
    /// [`Error::Data`] if there are none, or one is not finite.
    pub fn try_new(mut costs: Vec<f32>) -> Result<Self> {
        if costs.is_empty() {
            return Err(Error::Data("calibration needs at least one held-out row, got 0".to_owned()));
        }
        if let Some(cost) = costs.iter().find(|c| !c.is_finite()) {
            return Err(Error::Data(format!("calibration needs finite costs, got {cost}")));
        }
        costs.sort_by(f32::total_cmp);
        Ok(Self { costs })
    }

    /// The number of held-out rows, n.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.costs.len()
    }

    /// The sorted costs.
    pub fn costs(&self) -> &[f32] {
        &self.costs
    }

    /// The p-value of a cost, in [1/(n + 1), 1]. A cost that is not a number is as strange as can be.
    pub fn p_value(&self, cost: f32) -> f64 {
        let below = if cost.is_nan() { self.costs.len() } else { self.costs.partition_point(|c| *c < cost) };
        (1 + self.costs.len() - below) as f64 / (1 + self.costs.len()) as f64
    }

    /// The smallest p-value that n rows can give, 1/(n + 1).
    pub fn smallest_p(&self) -> f64 {
        1.0 / (1 + self.costs.len()) as f64
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::below_all(0.5, 1.0)]
    #[case::equal_to_the_smallest(1.0, 1.0)]
    #[case::a_tie_counts(2.0, 0.8)]
    #[case::equal_to_the_largest(4.0, 0.4)]
    #[case::above_all(4.5, 0.2)]
    #[case::not_a_number(f32::NAN, 0.2)]
    fn p_values_by_hand(#[case] cost: f32, #[case] p: f64) {
        let calibration = Calibration::try_new(vec![4.0, 1.0, 2.0, 2.0]).unwrap();
        // Four rows: (1 + #{≥ cost}) / 5, where 2.0 is met by 2.0, 2.0 and 4.0.
        assert_eq!(calibration.p_value(cost), p);
    }

    #[test]
    fn refuses_what_cannot_be_ranked() {
        assert!(Calibration::try_new(vec![]).is_err());
        assert!(Calibration::try_new(vec![1.0, f32::NAN]).is_err());
    }

    /// Exchangeable scores: over all ranks of a new row among n, P(p ≤ α) is ⌊α(n + 1)⌋/(n + 1).
    #[test]
    fn false_alarms_are_at_most_alpha() {
        let n = 99;
        for alpha in [0.01, 0.05, 0.1] {
            let mut alarms = 0;
            for new in 0..=n {
                let others = (0..=n).filter(|i| *i != new).map(|i| i as f32).collect();
                alarms += usize::from(Calibration::try_new(others).unwrap().p_value(new as f32) <= alpha);
            }
            assert_eq!(alarms, (alpha * (n + 1) as f64) as usize);
        }
    }
}
