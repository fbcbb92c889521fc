//! `wae_interpolate(a, b, steps [, model])`: the images on the line between two latent codes.
//!
//! `y_i = G((1 − t_i)·a + t_i·b), t_i = i/(steps − 1), i = 0, ..., steps − 1`

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::ScalarUDF;

use crate::columns::{check_offsets, fixed_size_list};
use crate::decoded::{Decoded, decoded_field};
use crate::documentation::{FunctionDocumentation, LATENT_ARGUMENT, MODEL_ARGUMENT};
use crate::error::{Place, exec_error, row_error};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;
use crate::vectors::{Vectors, coerce_vector, vector_width};

/// Points of a line: its ends, at least.
const STEPS: std::ops::RangeInclusive<i64> = 2..=1000;

const NAME: &str = "wae_interpolate";

/// The function under a session's options.
pub(crate) fn wae_interpolate_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeInterpolate, options)
}

/// (Z,), (Z,) -> (steps, H, W, C).
#[derive(Debug)]
struct WaeInterpolate;

impl ScalarKernel for WaeInterpolate {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn required(&self) -> usize {
        3
    }

    fn model_position(&self, _: usize, _: &dyn Fn(usize) -> bool) -> Option<usize> {
        Some(3)
    }

    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        let coerce = |(i, data_type): (usize, &DataType)| match i {
            0 | 1 => coerce_vector(data_type, &DataType::Float32),
            2 if data_type.is_integer() => DataType::Int64,
            _ => data_type.clone(),
        };
        types.iter().enumerate().map(coerce).collect()
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        if let Some(model) = args.model() {
            check(args, model)?;
        }
        let item = Arc::new(decoded_field("item", args.model()));
        Ok(Field::new(NAME, DataType::List(item), true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let (Some(a), Some(b), Some(steps)) = (batch.array(0)?, batch.array(1)?, batch.array(2)?) else {
            return Ok(batch.nulls());
        };
        let Some(steps) = steps.as_primitive_opt::<Int64Type>() else { return Ok(batch.nulls()) };
        let a = Vectors::try_new(NAME, &a)?;
        let b = Vectors::try_new(NAME, &b)?;
        let config = batch.model()?.wae().config();
        let model = (batch.model()?.name(), config.latent_dim());
        let mut images =
            CodeDecoder { batch, codes: Vec::new(), decoded: Decoded::with_rows(NAME, 0, batch.model()?)? };
        let mut lengths = Vec::with_capacity(batch.rows());
        let mut valid = Vec::with_capacity(batch.rows());
        for row in 0..batch.rows() {
            let ends = (a.code(NAME, "a", row, model)?, b.code(NAME, "b", row, model)?);
            let count = (!steps.is_null(row)).then(|| steps.value(row));
            if let Some(count) = count.filter(|count| !STEPS.contains(count)) {
                return Err(row_error(NAME, Place::Row(row), steps_error(count)));
            }
            let (length, is_valid) = match (ends, count) {
                ((Some(a), Some(b)), Some(count)) => {
                    line(&a, &b, count as usize, |code| images.push(code))?;
                    (count as usize, true)
                }
                _ => (0, false),
            };
            lengths.push(length);
            valid.push(is_valid);
        }
        images.flush()?;
        list(batch, images.decoded, &lengths, valid.into())
    }
}

/// Checks the codes' widths and a literal number of steps.
fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
    let expected = model.wae().config().latent_dim();
    for (i, parameter) in DOCUMENTATION.parameters().enumerate().take(2) {
        let Some(field) = args.field(i) else { continue };
        let width = vector_width(NAME, parameter, field.data_type())?;
        if let Some(got) = width.filter(|width| *width != expected) {
            let name = model.name();
            return plan_err!("{NAME}: {parameter} has {got} values, model '{name}' takes {expected}");
        }
    }
    match (args.field(2).map(Field::data_type), args.literal(2)) {
        (Some(DataType::Int64), Some(ScalarValue::Int64(Some(steps)))) if !STEPS.contains(steps) => {
            plan_err!("{NAME}: {}", steps_error(*steps))
        }
        (None | Some(DataType::Int64 | DataType::Null), _) => Ok(()),
        (Some(other), _) => plan_err!("{NAME}: steps must be an integer, got {other}"),
    }
}

fn steps_error(steps: i64) -> String {
    format!("steps must be between {} and {}, got {steps}", STEPS.start(), STEPS.end())
}

/// The points from a to b, both included exactly.
fn line(a: &[f32], b: &[f32], steps: usize, mut take: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
    for i in 0..steps {
        let t = i as f64 / (steps - 1) as f64;
        take(a.iter().zip(b).map(|(a, b)| ((1.0 - t) * f64::from(*a) + t * f64::from(*b)) as f32).collect())?;
    }
    Ok(())
}

/// Codes that are decoded `wae.batch_size` at a time, whichever rows they are of.
struct CodeDecoder<'a> {
    batch: &'a Batch<'a>,
    codes: Vec<f32>,
    decoded: Decoded,
}

impl CodeDecoder<'_> {
    fn push(&mut self, code: Vec<f32>) -> Result<()> {
        let full = self.batch.options().batch_size().saturating_mul(code.len());
        self.codes.extend(code);
        if self.codes.len() >= full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.codes.is_empty() {
            return Ok(());
        }
        let images = self.batch.model()?.wae().decode(&self.codes).map_err(|e| exec_error(NAME, &e))?;
        self.codes.clear();
        let decoded = Decoded::of(self.batch.model()?, &images);
        check_offsets(NAME, self.decoded.bytes().saturating_add(decoded.bytes()))?;
        self.decoded.extend(decoded);
        Ok(())
    }
}

/// A list of images a row.
fn list(batch: &Batch<'_>, decoded: Decoded, lengths: &[usize], nulls: NullBuffer) -> Result<ArrayRef> {
    let DataType::List(item) = batch.return_field().data_type() else {
        return exec_err!("{NAME}: a list of images expected");
    };
    let images = NullBuffer::new_valid(lengths.iter().sum());
    let images = fixed_size_list(item, decoded.into_array(), images)?;
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, images, Some(nulls))?))
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_interpolate(a, b, steps [, model])",
    description: "The images between two latent codes: a List of image tensors of UInt8, `steps` of them, decoded from points at \
         equal distances on the line from a to b, both included; of a model of features or with a backbone, Float32 in the column's units. \
         `unnest` makes them rows.",
    arguments: &[
        ("a", LATENT_ARGUMENT),
        ("b", "Another latent code."),
        ("steps", "The number of images: an integer from 2 to 1000."),
        ("model", MODEL_ARGUMENT),
    ],
    example: "SELECT image_encode(image) FROM (SELECT unnest(wae_interpolate(wae_encode(x), wae_encode(y), 8)) AS image FROM pairs);",
    related: &["wae_decode"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_ends_and_its_middle() {
        let mut points = Vec::new();
        line(&[0.1, -1.0], &[0.7, 3.0], 3, |code| {
            points.push(code);
            Ok(())
        })
        .unwrap();
        assert_eq!(points, [[0.1, -1.0], [0.4, 1.0], [0.7, 3.0]]);
    }
}
