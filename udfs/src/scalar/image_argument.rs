//! The image among the arguments of a call: whether its type will do, and how its column is read.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::{Result, plan_err};
use wae_core::image::{AxisOrder, ImageType};
use wae_core::{ImageColumn, ImageShape};

use crate::columns::image_type;
use crate::error::{plan_error, shape_mismatch};
use crate::models::LoadedModel;

/// Checks that a field holds images that a model, if there is one, takes, as far as its type tells.
pub(crate) fn check_image(function: &str, field: &Field, model: Option<&LoadedModel>) -> Result<()> {
    let image_type = image_type(field).or_else(|message| plan_err!("{function}: {message}"))?;
    let (Some(got), Some(model)) = (image_type.shape(), model) else { return Ok(()) };
    image_type.check_order().map_err(|e| plan_error(function, &e))?;
    let config = model.wae().config();
    if config.preprocess().is_none() && got != config.image() {
        return plan_err!("{function}: {}", shape_mismatch(got, model.name(), config.image()));
    }
    Ok(())
}

/// A column as images; flat lists are of this shape, height, width, channels where no order is stated.
pub(crate) fn read(
    field: &Field,
    array: &ArrayRef,
    shape: Option<ImageShape>,
    order: Option<AxisOrder>,
) -> wae_core::Result<ImageColumn> {
    let flat = ImageType::try_new(field).is_ok_and(|image_type| image_type.is_flat());
    match order.or((flat && shape.is_some()).then_some(AxisOrder::Hwc)) {
        Some(order) => ImageColumn::try_new_in_order(field, array, shape, order),
        None => ImageColumn::try_new(field, array, None),
    }
}

/// Checks that the type of a field says how its values make an image; `shape` is that of a list of one channel whose
/// type does not say it.
pub(crate) fn check_layout(function: &str, field: &Field, shape: Option<ImageShape>) -> Result<()> {
    let image_type = image_type(field).or_else(|message| plan_err!("{function}: {message}"))?;
    image_type.check_order().and_then(|()| image_type.check_flat(shape)).map_err(|e| plan_error(function, &e))
}
