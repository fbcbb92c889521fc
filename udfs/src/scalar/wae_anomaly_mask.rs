//! `wae_anomaly_mask(image [, alpha [, model]])`: the places of an image that alone would make it an outlier.
//!
//! `m(p) = 255 if (1 + #{held-out f ≥ f(p)})/(n + 1) ≤ α, else 0`
//!
//! Where: f(p) is the anomaly map before it is scaled ([`AnomalyStatistics`](wae_core::calibrate::AnomalyStatistics)), and
//! the held-out f are the largest values of the n held-out rows' maps. An image's score is its largest f(p), so that the
//! mask is empty where the image is no outlier by this score, and a normal image has any false place with probability at
//! most α, on average over calibration draws.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt8Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::{Score, Threshold};
use wae_core::localization::mark;

use crate::columns::{buffer, fixed_size_list, map_size, mask_field};
use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::alpha::{self, ALPHA_ARGUMENT};
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::{Outputs, Pass};
use crate::scalar::scores;

const NAME: &str = "wae_anomaly_mask";

/// The function under a session's options.
pub(crate) fn wae_anomaly_mask_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeAnomalyMask, options)
}

#[derive(Debug)]
struct WaeAnomalyMask;

impl ScalarKernel for WaeAnomalyMask {
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
        Outputs::FIELD
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        check(args)?;
        Ok(mask_field(NAME, args.model()))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let maps = ThresholdedMaps::of_batch(batch, &batch.pass()?)?;
        let (height, width) = map_size(batch.model()?);
        let mut places: Vec<u8> = buffer(NAME, batch.rows(), height * width)?; // (N, H, W)
        for (row, places) in places.chunks_exact_mut(height * width).enumerate() {
            if let Some((map, threshold)) = maps.row(row) {
                mark(map, threshold, places);
            }
        }
        fixed_size_list(batch.return_field(), Arc::new(UInt8Array::from(places)), maps.nulls())
    }
}

/// Checks the arguments of a call: the image, alpha, and that the model has an anomaly map and held-out rows.
pub(super) fn check(args: &PlannedArgs<'_>) -> Result<()> {
    args.check_image()?;
    let Some(model) = args.model() else { return Ok(()) };
    scores::scale_of_map(args.function(), model)?;
    alpha::check(args, model, scores::held_out(args.function(), model, Score::AnomalyScore)?)
}

/// The anomaly maps of a batch before they are scaled, with the threshold of each.
pub(super) struct ThresholdedMaps {
    maps: ArrayRef,
    thresholds: Vec<Option<Threshold>>,
    places: usize,
}

impl ThresholdedMaps {
    /// The maps of a pass, and the thresholds that a call's alpha gives.
    pub(super) fn of_batch(batch: &Batch<'_>, pass: &Pass<'_>) -> Result<Self> {
        let model = batch.model()?;
        let held_out = scores::held_out(batch.function(), model, Score::AnomalyScore)?;
        let thresholds = alpha::thresholds(batch, held_out)?;
        let (height, width) = map_size(model);
        let places = height * width;
        let maps = pass.field()?;
        match maps.as_fixed_size_list_opt() {
            Some(lists) if lists.value_length() as usize == places => Ok(Self { maps, thresholds, places }),
            _ => exec_err!("{}: maps of {places} values expected, got {}", batch.function(), maps.data_type()),
        }
    }

    /// The map of a row, and the threshold that its outlying places exceed; `None` where the image or alpha is NULL.
    pub(super) fn row(&self, row: usize) -> Option<(&[f32], Threshold)> {
        let threshold = self.thresholds[row].filter(|_| self.maps.is_valid(row))?;
        let values = self.maps.as_fixed_size_list().values().as_primitive::<Float32Type>().values();
        Some((&values[row * self.places..(row + 1) * self.places], threshold))
    }

    /// The rows that have a map and a threshold.
    pub(super) fn nulls(&self) -> NullBuffer {
        (0..self.thresholds.len()).map(|row| self.row(row).is_some()).collect::<Vec<_>>().into()
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_anomaly_mask(image [, alpha [, model]])",
    description: "The places of an image that alone would make it an outlier at alpha: a UInt8 tensor, height x width, of the \
         size of `wae_anomaly_map`, 255 at these and 0 elsewhere. It is all 0 exactly where `wae_is_outlier(image, alpha, model, \
         'anomaly_score')` is false, so that a normal image has any false place with probability at most alpha, on average over \
         calibration draws; `wae.confidence` applies to it; `wae.score` does not. A model of an older version has no anomaly \
         map, and is refused.",
    arguments: &[("image", IMAGE_ARGUMENT), ("alpha", ALPHA_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT image_encode(wae_anomaly_mask(image, 0.05, 'fashion')) AS png FROM 'images.parquet' WHERE wae_is_outlier(image, 0.05, 'fashion');",
    related: &["wae_anomaly_regions", "wae_anomaly_map", "wae_is_outlier"],
};
