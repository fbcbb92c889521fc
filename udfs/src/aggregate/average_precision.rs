//! `average_precision(score, is_positive)`: the mean precision at the scores of positives, weighted by the gain in
//! recall.
//!
//! `AP = Σ_k (R_k − R_{k−1})·P_k`
//!
//! Where: k runs over the distinct scores from the highest down; P_k is the share of positives among the rows that
//! score at least that, and R_k the share of all positives that are among them. Rows of equal score enter together, and
//! nothing is interpolated between thresholds.
//!
//! # Source
//! scikit-learn, `average_precision_score`. There, rows without a positive give 0; here NULL.

use datafusion::logical_expr::AggregateUDF;

use crate::aggregate::ranking::{IS_POSITIVE_ARGUMENT, RankingAggregate, RankingMetric, SCORE_ARGUMENT, ties};
use crate::documentation::FunctionDocumentation;

/// The aggregate.
pub(crate) fn average_precision_udaf() -> AggregateUDF {
    AggregateUDF::from(RankingAggregate::new(&AveragePrecision))
}

#[derive(Debug)]
struct AveragePrecision;

impl RankingMetric for AveragePrecision {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn of_sorted(&self, positives: &[f64], negatives: &[f64]) -> f64 {
        let mut true_positives = 0;
        let mut flagged = 0;
        let mut sum = 0.0;
        for (p, n) in ties(positives, negatives).into_iter().rev() {
            true_positives += p;
            flagged += p + n;
            sum += p as f64 * true_positives as f64 / flagged as f64;
        }
        sum / positives.len() as f64
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: "average_precision",
    syntax: "average_precision(score, is_positive)",
    description: "The average precision, a Float64: the precision at each distinct score, weighted by the gain in recall (the \
         area under the precision-recall curve as a step function, as scikit-learn's). A score that says nothing gives \
         the share of positives. Rows where either argument is NULL are skipped; with rows of one class only, it is NULL.",
    arguments: &[("score", SCORE_ARGUMENT), ("is_positive", IS_POSITIVE_ARGUMENT)],
    example: "SELECT average_precision(wae_reconstruction_cost(image, 'fashion'), label > 4) FROM 'images.parquet';",
    related: &["auroc"],
};

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The last by scikit-learn 1.9.1, `average_precision_score`.
    #[rstest]
    #[case::apart(&[3.0, 4.0], &[1.0, 2.0], 1.0)]
    #[case::reversed(&[1.0], &[2.0, 3.0], 1.0 / 3.0)]
    #[case::all_tied(&[1.0, 1.0], &[1.0, 1.0, 1.0], 0.4)]
    // At 3: recall 1/2 at precision 1; at 2: recall 1 at precision 2/3; below, recall gains nothing.
    #[case::one_tie(&[2.0, 3.0], &[1.0, 2.0], 0.5 + 0.5 * 2.0 / 3.0)]
    #[case::scikit_learn(&[0.35, 0.8, 0.8], &[0.1, 0.2, 0.35, 0.4, 0.8], 0.6111111111111112)]
    fn by_hand(#[case] positives: &[f64], #[case] negatives: &[f64], #[case] expected: f64) {
        assert!((AveragePrecision.of_sorted(positives, negatives) - expected).abs() < 1e-15);
    }
}
