//! Aggregates of a ranking: how well a score tells positives from the rest.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};

use crate::aggregate::{list_state, list_value, lists, refuse_distinct};
use crate::documentation::FunctionDocumentation;
use crate::error::{Place, row_error};

/// The description of the argument that holds a score.
pub(crate) const SCORE_ARGUMENT: &str =
    "The score, any number, compared as a Float64: higher for what should be positive. NaN is an error.";

/// The description of the argument that holds the truth.
pub(crate) const IS_POSITIVE_ARGUMENT: &str = "A Boolean: whether the row is positive.";

/// A metric of a ranking: its entry in the reference and its computation.
pub(crate) trait RankingMetric: Debug + Send + Sync {
    /// The entry in the SQL reference, of parameters (score, is_positive).
    fn documentation(&self) -> &'static FunctionDocumentation;

    /// The metric of scores in ascending order, at least one of either class.
    fn of_sorted(&self, positives: &[f64], negatives: &[f64]) -> f64;
}

/// A [`RankingMetric`] as DataFusion calls it.
#[derive(Debug)]
pub(crate) struct RankingAggregate {
    metric: &'static dyn RankingMetric,
    signature: Signature,
    documentation: Documentation,
}

impl RankingAggregate {
    /// The aggregate.
    pub(crate) fn new(metric: &'static dyn RankingMetric) -> Self {
        let documentation = metric.documentation();
        let signature = documentation.signature(Volatility::Immutable, &[DataType::Float64, DataType::Boolean]);
        Self { metric, signature, documentation: documentation.page() }
    }
}

impl PartialEq for RankingAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for RankingAggregate {}

impl Hash for RankingAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl AggregateUDFImpl for RankingAggregate {
    fn name(&self) -> &str {
        self.metric.documentation().name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerce = |(i, data_type): (usize, &DataType)| match i {
            0 if data_type.is_numeric() || data_type.is_null() => DataType::Float64,
            1 if data_type.is_null() => DataType::Boolean,
            _ => data_type.clone(),
        };
        Ok(types.iter().enumerate().map(coerce).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.metric.documentation().check_arity(2, types.len())?;
        match (&types[0], &types[1]) {
            (DataType::Float64, DataType::Boolean) => Ok(DataType::Float64),
            (DataType::Float64, other) => plan_err!("{}: is_positive must be a Boolean, got {other}", self.name()),
            (other, _) => plan_err!("{}: score must be a number, got {other}", self.name()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct(self.name(), &args)?;
        Ok(Box::new(Scores { positives: Vec::new(), negatives: Vec::new(), metric: self.metric }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name| list_state(args.name, name, DataType::Float64);
        Ok(vec![list("positives"), list("negatives")])
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// The scores of both classes, all of them: ranks need every score.
#[derive(Debug)]
struct Scores {
    positives: Vec<f64>,
    negatives: Vec<f64>,
    metric: &'static dyn RankingMetric,
}

impl Accumulator for Scores {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let scores = values[0].as_primitive::<Float64Type>();
        let labels = values[1].as_boolean();
        for row in 0..scores.len() {
            if scores.is_null(row) || labels.is_null(row) {
                continue;
            }
            let score = scores.value(row);
            if score.is_nan() {
                return Err(row_error(
                    self.metric.documentation().name,
                    Place::Row(row),
                    "score must be a number, got NaN",
                ));
            }
            let class = if labels.value(row) { &mut self.positives } else { &mut self.negatives };
            class.push(score);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.positives.is_empty() || self.negatives.is_empty() {
            return Ok(ScalarValue::Float64(None));
        }
        self.positives.sort_unstable_by(f64::total_cmp);
        self.negatives.sort_unstable_by(f64::total_cmp);
        Ok(ScalarValue::Float64(Some(self.metric.of_sorted(&self.positives, &self.negatives))))
    }

    fn size(&self) -> usize {
        size_of_val(self) + (self.positives.capacity() + self.negatives.capacity()) * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let take = |scores: &mut Vec<f64>| list_value::<Float64Type>(std::mem::take(scores));
        Ok(vec![take(&mut self.positives)?, take(&mut self.negatives)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let name = self.metric.documentation().name;
        for (index, class) in [&mut self.positives, &mut self.negatives].into_iter().enumerate() {
            for scores in lists::<Float64Type>(name, states, index)? {
                class.extend_from_slice(scores.values());
            }
        }
        Ok(())
    }
}

/// How many positives and negatives have each score, in ascending order; −0 and 0 are one score.
pub(crate) fn ties(positives: &[f64], negatives: &[f64]) -> Vec<(u64, u64)> {
    let mut p = positives;
    let mut n = negatives;
    let take = |scores: &mut &[f64], score: f64| {
        let (equal, rest) = scores.split_at(scores.partition_point(|s| *s <= score));
        *scores = rest;
        equal.len() as u64
    };
    let mut ties = Vec::new();
    while let Some(score) = [p.first(), n.first()].into_iter().flatten().copied().reduce(f64::min) {
        ties.push((take(&mut p, score), take(&mut n, score)));
    }
    ties
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_are_one_tie() {
        assert_eq!(ties(&[-0.0, 1.0, 2.0], &[0.0, 0.0, 2.0, 3.0]), [(1, 2), (1, 0), (1, 1), (0, 1)]);
        assert_eq!(ties(&[f64::INFINITY], &[f64::NEG_INFINITY]), [(0, 1), (1, 0)]);
    }
}
