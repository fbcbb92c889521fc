//! `wae_detect(image [, model])`: every score of an image at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Float64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::Score;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::alpha::{DEFAULT_ALPHA, threshold};
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores;

const NAME: &str = "wae_detect";

/// The function under a session's options.
pub(crate) fn wae_detect_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeDetect, options)
}

#[derive(Debug)]
struct WaeDetect;

impl ScalarKernel for WaeDetect {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::LATENT.union(Outputs::COST).union(Outputs::ANOMALY)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(Field::new(NAME, DataType::Struct(fields()), true))
    }

    /// A field that the model's file has no numbers for is NULL in every row, and the others are given.
    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        let pass = batch.pass()?;
        let costs = scores::ranked(&pass, model, Score::Cost)?;
        let rows = costs.len();
        let distances = if model.wae().has_latent_statistics() {
            scores::ranked(&pass, model, Score::LatentDistance)?
        } else {
            Float32Array::new_null(rows)
        };
        let anomalies = scores::ranked(&pass, model, Score::AnomalyScore)?;
        let scaled = match model.wae().anomaly_scale() {
            Some(scale) => scores::scaled(&anomalies, scale),
            None => Float32Array::new_null(rows),
        };
        let score = scores::default_score(Some(model), batch.options());
        let held_out = scores::find_held_out(model, score);
        let ranked = match score {
            Score::Cost => &costs,
            Score::LatentDistance => &distances,
            Score::AnomalyScore => &anomalies,
        };
        let p_values: Float64Array = match held_out {
            Some(held_out) => ranked.unary(|score| held_out.p_value(score)),
            None => Float64Array::new_null(rows),
        };
        let confidence = batch.options().confidence();
        let threshold = held_out.and_then(|held_out| threshold(DEFAULT_ALPHA, confidence, held_out, model).ok());
        let outliers: BooleanArray = ranked.iter().map(|score| Some(threshold?.is_exceeded_by(score?))).collect();
        let nulls = costs.nulls().cloned();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(costs), Arc::new(distances), Arc::new(scaled), Arc::new(p_values), Arc::new(outliers)];
        Ok(Arc::new(StructArray::try_new(fields(), columns, nulls)?))
    }
}

/// The fields of the struct.
fn fields() -> Fields {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    vec![
        field("cost", DataType::Float32),
        field("latent_distance", DataType::Float32),
        field("anomaly_score", DataType::Float32),
        field("p_value", DataType::Float64),
        field("is_outlier", DataType::Boolean),
    ]
    .into()
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_detect(image [, model])",
    description: "Every score of an image, from one pass through the network: a struct of `cost` (`wae_reconstruction_cost`), \
         `latent_distance`, `anomaly_score`, `p_value` (of the session's `wae.score`, or else the model's own, as \
         `wae_p_value`) and `is_outlier` (as `wae_is_outlier` at 0.01). A field that the model has no numbers for is NULL: \
         `is_outlier` with fewer than 99 held-out rows, which no p-value of 0.01 can come from (under `wae.confidence`, with \
         fewer than the rows that it needs); `p_value`, too, without held-out rows; of a model of an older version, then `anomaly_score`, and maybe `latent_distance`.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path, d['cost'], d['p_value'] FROM (SELECT path, wae_detect(image, 'fashion') AS d FROM 'images.parquet') WHERE d['is_outlier'];",
    related: &["wae_is_outlier"],
};
