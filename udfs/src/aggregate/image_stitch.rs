//! `image_stitch(tile, y, x)`: tiles, or maps of tiles, put together again.
//!
//! The arithmetic is that of [`Mosaic`](wae_core::image::Mosaic), and [`Groups`] collects the tiles.

mod groups;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, plan_datafusion_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, Signature, Volatility,
};
use wae_core::image::ImageType;

use self::groups::{Groups, OneGroup, value_type};
use crate::aggregate::{list_state, refuse_distinct};
use crate::documentation::FunctionDocumentation;
use crate::error::plan_error;
use crate::scalar::planned_image::PlannedImage;
use crate::scalar::row_args::coerce_integers;
use crate::tensors::{Size, TensorForm};

const NAME: &str = "image_stitch";

/// The aggregate.
pub(crate) fn image_stitch_udaf() -> AggregateUDF {
    let tile = DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float32, true)), 16);
    AggregateUDF::from(ImageStitch {
        signature: DOCUMENTATION.signature(Volatility::Immutable, &[tile, DataType::Int64, DataType::Int64]),
        documentation: DOCUMENTATION.page(),
        tile: PlannedImage::default(),
    })
}

/// The aggregate, with what planning found of its tiles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ImageStitch {
    signature: Signature,
    documentation: Documentation,
    tile: PlannedImage,
}

impl ImageStitch {
    /// The same aggregate, of tiles whose type planning has found.
    pub(crate) fn of_tile(&self, tile: PlannedImage) -> Self {
        Self { tile, ..self.clone() }
    }

    /// Bytes that a call carries to another node: the type of its tiles, once planning has found it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings as keys and values: writing them cannot fail.
        if self.tile.is_planned() { serde_json::to_vec(&self.tile).unwrap_or_default() } else { Vec::new() }
    }

    /// The aggregate of a call that came from another node with these bytes.
    ///
    /// # Errors
    /// A plan error if they cannot be read.
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(self.clone());
        }
        let tile = serde_json::from_slice(bytes).map_err(|e| {
            plan_datafusion_err!("{NAME}: the call cannot be read ({e}), expected one of this version of the plugin")
        })?;
        Ok(self.of_tile(tile))
    }

    /// The type of the tiles.
    pub(crate) fn tile(&self) -> &PlannedImage {
        &self.tile
    }

    /// The field of the image that tiles of a field make.
    fn field(&self, tile: &FieldRef) -> Result<FieldRef> {
        let fields = [Arc::clone(tile)];
        let restored = self.tile.restore(&fields);
        let tile = &restored[0];
        if tile.data_type().is_null() {
            return Ok(Arc::new(TensorForm::BYTES.field(NAME, Size::PerRow)));
        }
        let image_type = ImageType::try_new(tile).map_err(|e| plan_error(NAME, &e))?;
        if image_type.is_encoded() {
            return plan_err!(
                "{NAME}: tile must be a tensor, got {}: encoded images become tensors by image_decode(bytes)",
                tile.data_type()
            );
        }
        if self.tile.is_planned() {
            image_type.check_order().and_then(|()| image_type.check_flat(None)).map_err(|e| plan_error(NAME, &e))?;
        }
        // As for the scalar functions, the type does not change when planning looks for the tiles'.
        let own = if self.tile.is_lost() { &Field::new(NAME, tile.data_type().clone(), true) } else { tile.as_ref() };
        let form = TensorForm::of(own).map_err(|e| plan_error(NAME, &e))?;
        Ok(Arc::new(form.field(NAME, Size::PerRow)))
    }

    fn groups(&self, args: &AccumulatorArgs<'_>) -> Result<Groups> {
        let tile = self.tile.restore(args.expr_fields);
        let Some(tile) = tile.first() else { return plan_err!("{NAME}: no tile") };
        Ok(Groups::new(Arc::clone(tile), Arc::clone(&args.return_field)))
    }
}

impl AggregateUDFImpl for ImageStitch {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(coerce_integers(types))
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        plan_err!("{NAME}: the result's type depends on the type of the tiles")
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        DOCUMENTATION.check_arity(3, fields.len())?;
        for (field, parameter) in fields.iter().zip(DOCUMENTATION.parameters()).skip(1) {
            if !field.data_type().is_integer() && !field.data_type().is_null() {
                return plan_err!("{NAME}: {parameter} must be an integer, got {}", field.data_type());
            }
        }
        self.field(&fields[0])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        refuse_distinct(NAME, &args)?;
        Ok(Box::new(OneGroup::new(self.groups(&args)?)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&args)?))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name, item| list_state(args.name, name, item);
        Ok(vec![
            list("shape", DataType::Int64),
            list("places", DataType::Int64),
            list("values", value_type(&args.return_field)?),
        ])
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "image_stitch(tile, y, x)",
    description: "The image that tiles make, or the map that the maps of tiles make: a tensor of UInt8, or of Float32 \
         for tiles of floats. Where tiles overlap, their values are averaged, and bytes rounded, halves up. Tiles have \
         one shape, and cover the image from y 0, x 0 to where the last of them end: a place that none covers is an \
         error, and so are two tiles at one place. A map that is smaller than its tile comes to the tile's size by \
         image_resize first. Tiles that overlap hide a map that is too small: where the stride is at most the map's \
         side, no place is bare, and the map comes out wrong. Rows where an argument is NULL are skipped; without any \
         other, it is NULL.",
    arguments: &[
        ("tile", "The tile, or its map: a tensor or nested lists; floats of any range."),
        ("y", "The row of the tile's first pixel, as image_tiles gives it: an integer."),
        ("x", "The column of the tile's first pixel, as image_tiles gives it: an integer."),
    ],
    example: "SELECT path, image_stitch(image_resize(wae_anomaly_map(tile['image'], 'wood'), 256, 256), tile['y'], tile['x']) AS map \
         FROM (SELECT path, unnest(image_tiles(bytes, 256, 128)) AS tile FROM read_images('photos/*.jpg')) GROUP BY path;",
    related: &["image_tiles", "wae_anomaly_map"],
};
