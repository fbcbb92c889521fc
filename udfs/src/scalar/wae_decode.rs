//! `wae_decode(latent [, model])`: the image of a latent code, G(z).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::ScalarUDF;

use crate::columns::fixed_size_list;
use crate::decoded::{Decoded, decoded_field};
use crate::documentation::{FunctionDocumentation, LATENT_ARGUMENT, MODEL_ARGUMENT};
use crate::error::{Place, exec_error, row_error};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::ScalarKernel;

const NAME: &str = "wae_decode";

/// The function under a session's options.
pub(crate) fn wae_decode_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeDecode, options)
}

/// y = G(z): (Z,) -> (H, W, C).
#[derive(Debug)]
struct WaeDecode;

impl ScalarKernel for WaeDecode {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    /// Lists of other numbers, such as `[1, 0, 2]`, become lists of Float32.
    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        let mut types = types.to_vec();
        if let Some(DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)) =
            types.first_mut()
            && (item.data_type().is_null() || item.data_type().is_numeric() && !item.data_type().is_floating())
        {
            *item = Arc::new(item.as_ref().clone().with_data_type(DataType::Float32));
        }
        types
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        if let (Some(model), Some(latent)) = (args.model(), args.field(0)) {
            check(latent.data_type(), model)?;
        }
        Ok(decoded_field(NAME, args.model()))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let (wae, Some(column)) = (batch.model()?.wae(), batch.array(0)?) else { return Ok(batch.nulls()) };
        if column.data_type().is_null() {
            return Ok(batch.nulls());
        }
        let mut decoded = Decoded::with_rows(NAME, batch.rows(), batch.model()?)?;
        let valid: Vec<bool> = (0..column.len()).map(|row| column.is_valid(row)).collect();
        let present: Vec<usize> = (0..column.len()).filter(|row| valid[*row]).collect();
        for rows in present.chunks(batch.options().batch_size()) {
            let mut codes = Vec::with_capacity(rows.len() * wae.config().latent_dim()); // (N, Z)
            for &row in rows {
                codes.extend(read_code(batch, &column, row)?);
            }
            let images = wae.decode(&codes).map_err(|e| exec_error(NAME, &e))?; // (N, H, W, C)
            decoded.put(rows, &Decoded::of(batch.model()?, &images));
        }
        fixed_size_list(batch.return_field(), decoded.into_array(), valid.into())
    }
}

/// Checks that a type is that of codes as wide as the model's, as far as it tells.
fn check(latent: &DataType, model: &LoadedModel) -> Result<()> {
    let expected = model.wae().config().latent_dim();
    match latent {
        DataType::Null => Ok(()),
        DataType::FixedSizeList(item, length) if item.data_type().is_floating() => {
            if *length as usize == expected {
                return Ok(());
            }
            plan_err!("{NAME}: latent code has {length} values, model '{}' takes {expected}", model.name())
        }
        DataType::List(item) | DataType::LargeList(item) if item.data_type().is_floating() => Ok(()),
        got => plan_err!("{NAME}: latent must be a list of {expected} numbers, got {got}"),
    }
}

/// One row's code, finite and of the model's width.
fn read_code(batch: &Batch<'_>, column: &ArrayRef, row: usize) -> Result<Vec<f32>> {
    let items = match column.data_type() {
        DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        other => return exec_err!("{NAME}: latent must be a list of numbers, got {other}"),
    };
    let model = batch.model()?;
    let expected = model.wae().config().latent_dim();
    if items.len() != expected {
        let got = items.len();
        let reason = format!("latent code has {got} values, model '{}' takes {expected}", model.name());
        return Err(row_error(NAME, Place::Row(row), reason));
    }
    let items = arrow::compute::cast(&items, &DataType::Float32)?;
    let values = items.as_primitive::<Float32Type>();
    if values.null_count() > 0 || values.values().iter().any(|v| !v.is_finite()) {
        let reason = "latent code must hold finite numbers, got NULL, NaN or an infinity";
        return Err(row_error(NAME, Place::Row(row), reason));
    }
    Ok(values.values().to_vec())
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_decode(latent [, model])",
    description: "The image that a latent code stands for: an image tensor of UInt8, height x width x channels. Of features, \
         and of a model with a `backbone`, Float32 in the features' own units, and for vectors a list.",
    arguments: &[("latent", LATENT_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT image_encode(wae_decode(wae_encode(image), 'fashion')) AS png FROM 'images.parquet';",
    related: &["wae_encode"],
};
