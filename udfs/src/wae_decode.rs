//! `wae_decode(latent [, model])`: the image of a latent code, G(z).

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{Documentation, ScalarUDF};

use crate::args::{Batch, PlannedArgs};
use crate::columns::{buffer, fixed_size_list, image_field, to_bytes, unknown_image_field};
use crate::error::{exec_error, row_error};
use crate::function::{MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION};
use crate::models::LoadedModel;
use crate::options::WaeOptions;

/// The function under a session's options.
pub(crate) fn wae_decode_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeDecode>(options.clone()))
}

/// y = G(z): (Z,) -> (H, W, C).
#[derive(Debug)]
struct WaeDecode;

impl ModelKernel for WaeDecode {
    const NAME: &'static str = "wae_decode";
    const PARAMETERS: &'static [&'static str] = &["latent", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    /// Lists of other numbers, such as `[1, 0, 2]`, become lists of Float32.
    fn coerce(types: &[DataType]) -> Vec<DataType> {
        let mut types = types.to_vec();
        if let Some(DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)) =
            types.first_mut()
            && (item.data_type().is_null() || item.data_type().is_numeric() && !item.data_type().is_floating())
        {
            *item = Arc::new(item.as_ref().clone().with_data_type(DataType::Float32));
        }
        types
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        let (expected, name) = (model.wae().config().latent_dim(), model.name());
        match args.field(0).map(Field::data_type) {
            None | Some(DataType::Null) => Ok(()),
            Some(DataType::FixedSizeList(item, length)) if item.data_type().is_floating() => {
                if *length as usize == expected {
                    return Ok(());
                }
                plan_err!("wae_decode: latent code has {length} values, model '{name}' takes {expected}")
            }
            Some(DataType::List(item) | DataType::LargeList(item)) if item.data_type().is_floating() => Ok(()),
            Some(got) => plan_err!("wae_decode: latent must be a list of {expected} numbers, got {got}"),
        }
    }

    fn field(model: Option<&LoadedModel>) -> Result<Field> {
        Ok(decoded_field(Self::NAME, model))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        let (wae, Some(column)) = (batch.model()?.wae(), batch.array(0)?) else { return Ok(batch.nulls()) };
        if column.data_type().is_null() {
            return Ok(batch.nulls());
        }
        let width = wae.config().image().len();
        let mut pixels = buffer(Self::NAME, batch.rows(), width)?;
        let valid: Vec<bool> = (0..column.len()).map(|row| column.is_valid(row)).collect();
        let present: Vec<usize> = (0..column.len()).filter(|row| valid[*row]).collect();
        for rows in present.chunks(batch.options().batch_size()) {
            let mut codes = Vec::with_capacity(rows.len() * wae.config().latent_dim()); // (N, Z)
            for &row in rows {
                codes.extend(read_code(batch, &column, row)?);
            }
            let images = wae.decode(&codes).map_err(|e| exec_error(Self::NAME, &e))?; // (N, H, W, C)
            for (&row, image) in rows.iter().zip(images.chunks_exact(width)) {
                pixels[row * width..(row + 1) * width].copy_from_slice(&to_bytes(image));
            }
        }
        fixed_size_list(batch.return_field(), Arc::new(UInt8Array::from(pixels)), valid.into())
    }
}

/// One row's code, finite and of the model's width.
fn read_code(batch: &Batch<'_>, column: &ArrayRef, row: usize) -> Result<Vec<f32>> {
    let items = match column.data_type() {
        DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        other => return exec_err!("wae_decode: latent must be a list of numbers, got {other}"),
    };
    let model = batch.model()?;
    let (expected, name) = (model.wae().config().latent_dim(), model.name());
    if items.len() != expected {
        let got = items.len();
        let reason = format!("latent code has {got} values, model '{name}' takes {expected}");
        return Err(row_error("wae_decode", row, reason));
    }
    let items = arrow::compute::cast(&items, &DataType::Float32)?;
    let values = items.as_primitive::<Float32Type>();
    if values.null_count() > 0 || values.values().iter().any(|v| !v.is_finite()) {
        let reason = "latent code must hold finite numbers, got NULL, NaN or an infinity";
        return Err(row_error("wae_decode", row, reason));
    }
    Ok(values.values().to_vec())
}

/// The field of a column of images as the model makes them.
pub(crate) fn decoded_field(name: &str, model: Option<&LoadedModel>) -> Field {
    model.map_or_else(|| unknown_image_field(name), |m| image_field(name, m.wae().config().image()))
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "The image that a latent code stands for: an image tensor of UInt8, height x width x channels.",
        "wae_decode(latent [, model])",
    )
    .with_sql_example("SELECT image_encode(wae_decode(wae_encode(image), 'fashion')) AS png FROM 'images.parquet';")
    .with_argument(
        "latent",
        "The latent code: a FixedSizeList, List or LargeList of numbers, as many as the model's latent dimension.",
    )
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_encode")
    .build()
});
