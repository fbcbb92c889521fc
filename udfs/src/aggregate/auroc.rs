//! `auroc(score, is_positive)`: the area under the ROC curve.
//!
//! `AUROC = (R − n₊(n₊ + 1)/2)/(n₊·n₋) = P(s₊ > s₋) + ½·P(s₊ = s₋)`
//!
//! Where: R is the sum of the positives' ranks among all n₊ + n₋ rows, equal scores sharing the mean of their ranks
//! (Mann and Whitney's U). Computed by counting, in integers, so that rounding happens once, in the last division.

use datafusion::logical_expr::AggregateUDF;

use crate::aggregate::ranking::{IS_POSITIVE_ARGUMENT, RankingAggregate, RankingMetric, SCORE_ARGUMENT, ties};
use crate::documentation::FunctionDocumentation;

/// The aggregate.
pub(crate) fn auroc_udaf() -> AggregateUDF {
    AggregateUDF::from(RankingAggregate::new(&Auroc))
}

#[derive(Debug)]
struct Auroc;

impl RankingMetric for Auroc {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn of_sorted(&self, positives: &[f64], negatives: &[f64]) -> f64 {
        // Twice U: pairs won count 2, ties 1. Numbers of rows fit 64 bits, those of pairs need not.
        let mut below = 0_u128;
        let mut twice = 0_u128;
        for (p, n) in ties(positives, negatives) {
            twice += u128::from(p) * (2 * below + u128::from(n));
            below += u128::from(n);
        }
        twice as f64 / (2 * positives.len() as u128 * negatives.len() as u128) as f64
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: "auroc",
    syntax: "auroc(score, is_positive)",
    description: "The area under the ROC curve, a Float64: the chance that a positive row scores above a negative one, ties \
         counting half. 0.5 says nothing, 1 tells all apart. Rows where either argument is NULL are skipped; with rows of \
         one class only, it is NULL.",
    arguments: &[("score", SCORE_ARGUMENT), ("is_positive", IS_POSITIVE_ARGUMENT)],
    example: "SELECT auroc(wae_reconstruction_cost(image, 'fashion'), label > 4) FROM 'images.parquet';",
    related: &["average_precision"],
};

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The last by scikit-learn 1.9.1, `roc_auc_score`.
    #[rstest]
    #[case::apart(&[3.0, 4.0], &[1.0, 2.0], 1.0)]
    #[case::reversed(&[1.0], &[2.0, 3.0], 0.0)]
    #[case::all_tied(&[1.0, 1.0], &[1.0], 0.5)]
    #[case::one_tie_of_four_pairs(&[2.0, 3.0], &[1.0, 2.0], 0.875)]
    #[case::scikit_learn(&[0.35, 0.8, 0.8], &[0.1, 0.2, 0.35, 0.4, 0.8], 0.7666666666666667)]
    fn by_hand(#[case] positives: &[f64], #[case] negatives: &[f64], #[case] expected: f64) {
        assert!((Auroc.of_sorted(positives, negatives) - expected).abs() < 1e-15);
    }
}
