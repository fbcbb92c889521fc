//! `frechet_distance(x, y)`: how far two columns of vectors are apart, each taken as a Gaussian.
//!
//! `d² = ‖μ_x − μ_y‖² + tr(C_x + C_y − 2 (C_x C_y)^½)`
//!
//! Where: μ and C are the mean and the covariance (by rows, n − 1) of a column's vectors that are not NULL.

use std::mem::size_of_val;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Signature, Volatility};
use wae_core::objective::frechet::{Moments, frechet_distance};

use crate::aggregate::{list_state, list_value, lists, refuse_distinct};
use crate::documentation::{FunctionDocumentation, example_vector};
use crate::error::exec_error;
use crate::vectors::{Vectors, coerce_vector, vector_width};

const NAME: &str = "frechet_distance";

/// The aggregate.
pub(crate) fn frechet_distance_udaf() -> AggregateUDF {
    let examples = [example_vector(DataType::Float64), example_vector(DataType::Float64)];
    AggregateUDF::from(FrechetDistance {
        signature: DOCUMENTATION.signature(Volatility::Immutable, &examples),
        documentation: DOCUMENTATION.page(),
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FrechetDistance {
    signature: Signature,
    documentation: Documentation,
}

impl AggregateUDFImpl for FrechetDistance {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.iter().map(|data_type| coerce_vector(data_type, &DataType::Float64)).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        DOCUMENTATION.check_arity(2, types.len())?;
        let x = vector_width(NAME, "x", &types[0])?;
        let y = vector_width(NAME, "y", &types[1])?;
        match (x, y) {
            (Some(x), Some(y)) if x != y => plan_err!("{NAME}: x and y must have one width, got {x} and {y} values"),
            _ => Ok(DataType::Float64),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct(NAME, &args)?;
        Ok(Box::new(Samples::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let count = |name: &str| Arc::new(Field::new(format_state_name(args.name, name), DataType::UInt64, true));
        let list = |name| list_state(args.name, name, DataType::Float64);
        let x = [count("x_count"), list("x_mean"), list("x_scatter")];
        Ok(x.into_iter().chain([count("y_count"), list("y_mean"), list("y_scatter")]).collect())
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// The moments of x and of y, each from its first vector on.
#[derive(Debug, Default)]
struct Samples([Option<Moments>; 2]);

/// Columns of a state a sample.
const STATE: usize = 3;

impl Samples {
    /// Adds the moments of more rows.
    fn add(&mut self, sample: usize, more: Moments) -> Result<()> {
        match &mut self.0[sample] {
            Some(moments) => moments.merge(&more).map_err(|e| exec_error(NAME, &e)),
            empty => {
                *empty = Some(more);
                Ok(())
            }
        }
    }
}

impl Accumulator for Samples {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for (sample, parameter) in DOCUMENTATION.parameters().enumerate() {
            let vectors = Vectors::try_new(NAME, &values[sample])?;
            let mut rows = Vec::new();
            let mut width = None;
            for row in 0..vectors.len() {
                let Some(vector) = vectors.row(NAME, parameter, row)? else { continue };
                let expected = *width.get_or_insert(vector.len());
                if vector.len() != expected {
                    let got = vector.len();
                    return exec_err!(
                        "{NAME}: vectors of {parameter} must have one width, got {expected} and {got} values"
                    );
                }
                rows.extend_from_slice(vector);
            }
            if let Some(width) = width {
                self.add(sample, Moments::try_new(&rows, width).map_err(|e| exec_error(NAME, &e))?)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let [Some(x), Some(y)] = &self.0 else { return Ok(ScalarValue::Float64(None)) };
        frechet_distance(x, y).map(ScalarValue::Float64).map_err(|e| exec_error(NAME, &e))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.iter().flatten().map(Moments::memory).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = Vec::with_capacity(2 * STATE);
        for moments in &self.0 {
            let (count, mean, scatter) = match moments {
                Some(moments) => (moments.count(), moments.mean().to_vec(), moments.scatter().to_vec()),
                None => (0, Vec::new(), Vec::new()),
            };
            // One row's scatter is 0, and its matrix would be most of a state for a group a row.
            let scatter = if count < 2 { Vec::new() } else { scatter };
            state.push(ScalarValue::UInt64(Some(count)));
            state.push(list_value::<Float64Type>(mean)?);
            state.push(list_value::<Float64Type>(scatter)?);
        }
        Ok(state)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for sample in 0..self.0.len() {
            let first = sample * STATE;
            let Some(counts) = states.get(first).and_then(|counts| counts.as_primitive_opt::<UInt64Type>()) else {
                return exec_err!("{NAME}: a state without its count");
            };
            let means = lists::<Float64Type>(NAME, states, first + 1)?;
            let scatters = lists::<Float64Type>(NAME, states, first + 2)?;
            for (row, (mean, scatter)) in means.iter().zip(&scatters).enumerate() {
                let moments = match counts.value(row) {
                    0 => continue,
                    1 => Moments::try_new(mean.values(), mean.len()),
                    count => Moments::try_from_parts(count, mean.values(), scatter.values()),
                };
                self.add(sample, moments.map_err(|e| exec_error(NAME, &e))?)?;
            }
        }
        Ok(())
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "frechet_distance(x, y)",
    description: "The Fréchet distance of two columns of vectors, each taken as a Gaussian: the squared distance of their means \
         plus tr(Cx + Cy − 2 (Cx Cy)^½); a Float64. Over features of a network it is that network's Fréchet distance \
         (FID, of Inception's): distances of different networks do not compare. Each column skips its own NULLs, so that \
         two tables of any lengths meet by UNION ALL. Below two vectors of either, it is NULL. Vectors have one width, at \
         most 4096.",
    arguments: &[("x", "A vector: a FixedSizeList, List or LargeList of numbers."), ("y", "A vector as wide.")],
    example: "SELECT frechet_distance(x, y) FROM (SELECT wae_encode(image, 'fashion') AS x, NULL AS y FROM 'a.parquet' UNION \
         ALL SELECT NULL, wae_encode(image, 'fashion') FROM 'b.parquet');",
    related: &["wae_mmd"],
};
