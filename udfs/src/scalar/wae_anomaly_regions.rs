//! `wae_anomaly_regions(image [, alpha [, model]])`: the connected parts of an image's anomaly mask, the strangest first.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Float32Array, ListArray, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::Scale;
use wae_core::localization::{Region, regions};

use crate::columns::{check_offsets, map_size};
use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::alpha::{self, ALPHA_ARGUMENT};
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores;
use crate::scalar::wae_anomaly_mask::{ThresholdedMaps, check};

const NAME: &str = "wae_anomaly_regions";

/// The function under a session's options.
pub(crate) fn wae_anomaly_regions_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeAnomalyRegions, options)
}

#[derive(Debug)]
struct WaeAnomalyRegions;

impl ScalarKernel for WaeAnomalyRegions {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn model_position(&self, arguments: usize, is_text: &dyn Fn(usize) -> bool) -> Option<usize> {
        Some(alpha::model_position(arguments, is_text))
    }

    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        alpha::coerce(types)
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::FIELD.union(Outputs::PARTS)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        check(args)?;
        Ok(Field::new(NAME, DataType::List(region_item()), true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        let scale = scores::scale_of_map(NAME, model)?;
        let pass = batch.pass()?;
        let maps = ThresholdedMaps::of_batch(batch, &pass)?;
        let of_parts = pass.parts()?;
        let (_, width) = map_size(model);
        let mut found = Vec::new();
        let mut lengths = Vec::with_capacity(batch.rows());
        for row in 0..batch.rows() {
            let before = found.len();
            if let Some((map, threshold)) = maps.row(row) {
                // An image that is strange only as a whole is one region.
                found.extend(regions(map, width, threshold, threshold.is_exceeded_by(of_parts.value(row))));
            }
            lengths.push(found.len() - before);
        }
        check_offsets(NAME, found.len())?;
        let values = Arc::new(structs(&found, scale)?);
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(region_item(), offsets, values, Some(maps.nulls()))?))
    }
}

/// A region's fields.
static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let places = ["y", "x", "height", "width", "area"].map(|name| Field::new(name, DataType::UInt32, true));
    places.into_iter().chain([Field::new("peak", DataType::Float32, true)]).collect()
});

/// The item of a list of regions.
fn region_item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(FIELDS.clone()), true))
}

/// Regions as a column, their peaks on the scale of anomaly maps.
fn structs(regions: &[Region], scale: Scale) -> Result<StructArray> {
    let numbers = |of: fn(&Region) -> usize| -> ArrayRef {
        // A map's sides are at most 4096.
        Arc::new(UInt32Array::from_iter_values(regions.iter().map(|region| of(region) as u32)))
    };
    let peaks = Float32Array::from_iter_values(regions.iter().map(|region| scale.of(region.peak)));
    let columns: Vec<ArrayRef> = vec![
        numbers(|region| region.y),
        numbers(|region| region.x),
        numbers(|region| region.height),
        numbers(|region| region.width),
        numbers(|region| region.area),
        Arc::new(peaks),
    ];
    Ok(StructArray::try_new(FIELDS.clone(), columns, None)?)
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_anomaly_regions(image [, alpha [, model]])",
    description: "The connected parts of `wae_anomaly_mask`, the strangest first: a list of structs of `y`, `x`, `height` and \
         `width` (the box around a part, in places of `wae_anomaly_map`, from 0), `area` (its places) and `peak` (the largest \
         value of that map in it). Places that touch at a corner are connected. An image that is strange only as a \
         whole, at none of the `score_scales` that look at parts of it, is one region. Empty exactly where \
         `wae_is_outlier(image, alpha, model, 'anomaly_score')` is false.",
    arguments: &[("image", IMAGE_ARGUMENT), ("alpha", ALPHA_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path, r['y'], r['x'], r['area'], r['peak'] FROM (SELECT path, unnest(wae_anomaly_regions(image, 0.05, 'fashion')) AS r FROM 'images.parquet');",
    related: &["wae_anomaly_mask", "wae_anomaly_map"],
};
