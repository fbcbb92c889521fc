//! The image among the arguments of a call: whether its type will do, and how its column is read.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::{Result, plan_err};
use wae_core::config::Input;
use wae_core::image::{AxisOrder, ImageType};
use wae_core::{Config, ImageColumn, ImageShape};

use crate::columns::{features_type, image_type};
use crate::error::{plan_error, shape_mismatch};
use crate::models::LoadedModel;

/// Checks that a field holds images that a model, if there is one, takes, as far as its type tells.
pub(crate) fn check_image(function: &str, field: &Field, model: Option<&LoadedModel>) -> Result<()> {
    let image_type = type_of(function, field, model.map(|model| model.wae().config()))?;
    let (Some(got), Some(model)) = (image_type.shape(), model) else { return Ok(()) };
    image_type.check_order().map_err(|e| plan_error(function, &e))?;
    // A vector of as many values may be a map whose type an expression lost: planning looks for it.
    let config = model.wae().config();
    if config.backbone().is_some() {
        return check_colours(function, got, model);
    }
    let expected = config.source();
    let may_be_map = (got.height(), got.width(), got.channels()) == (1, 1, expected.len());
    if may_be_map { Ok(()) } else { check_shape(function, got, model) }
}

/// Checks that features, whose type planning has looked for, have the shape that a model takes.
pub(crate) fn check_features(function: &str, field: &Field, model: &LoadedModel) -> Result<()> {
    let config = model.wae().config();
    if config.row_input().is_none() {
        return Ok(());
    }
    type_of(function, field, Some(config))?.shape().map_or(Ok(()), |got| check_shape(function, got, model))
}

/// Checks that images have the colours that a pretrained network sees.
fn check_colours(function: &str, got: ImageShape, model: &LoadedModel) -> Result<()> {
    if got.channels() == 3 {
        return Ok(());
    }
    plan_err!("{function}: {}", shape_mismatch(got, model.name(), model.wae().config()))
}

fn check_shape(function: &str, got: ImageShape, model: &LoadedModel) -> Result<()> {
    let config = model.wae().config();
    if config.preprocess().is_none() && got != config.source() {
        return plan_err!("{function}: {}", shape_mismatch(got, model.name(), config));
    }
    Ok(())
}

/// Checks that a field holds images or features, of a call whose model is not known yet.
pub(crate) fn check_image_or_features(function: &str, field: &Field) -> Result<()> {
    match (image_type(field), features_type(field)) {
        (Err(message), Err(_)) => plan_err!("{function}: {message}"),
        _ => Ok(()),
    }
}

/// The type of a field of what a model takes; of a function over none, images.
fn type_of(function: &str, field: &Field, config: Option<&Config>) -> Result<ImageType> {
    let found = match config.and_then(Config::row_input) {
        Some(Input::Features { layout, .. }) => features_type(field).map(|features| features.in_default_order(layout)),
        None => image_type(field),
    };
    found.or_else(|message| plan_err!("{function}: {message}"))
}

/// The shape of flat lists without one: the model's, unless it sees images of any size by a pretrained network.
fn list_shape(config: &Config) -> Option<ImageShape> {
    config.backbone().is_none().then(|| config.image())
}

/// A column as what a model takes: images, flat lists of its shape; or features.
///
/// # Errors
/// Those of [`ImageColumn::try_new`] and [`ImageColumn::of_features`].
pub(crate) fn read_for(config: &Config, field: &Field, array: &ArrayRef) -> wae_core::Result<ImageColumn> {
    match config.row_input() {
        Some(Input::Features { layout, .. }) => ImageColumn::of_features(field, array, layout),
        None => ImageColumn::try_new(field, array, list_shape(config)),
    }
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

/// Checks that the type of a field says how its values make what a model takes; the model's shape is that of a list of
/// one channel whose type does not say it.
pub(crate) fn check_layout(function: &str, field: &Field, config: Option<&Config>) -> Result<()> {
    let image_type = type_of(function, field, config)?;
    let shape = config.and_then(list_shape);
    image_type.check_order().and_then(|()| image_type.check_flat(shape)).map_err(|e| plan_error(function, &e))
}
