//! `wae_detect(image [, model])`: every score of an image at once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Float64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float32Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::Score;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{ScalarKernel, Texts};
use crate::scalar::pass::Outputs;
use crate::scalar::scores;
use crate::scalar::wae_is_outlier::{DEFAULT_ALPHA, check_alpha};

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

    fn outputs(&self, _: &Texts<'_>) -> Outputs {
        Outputs::LATENT.union(Outputs::COST).union(Outputs::ANOMALY)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            scores::check_latent_statistics(NAME, model)?;
            scores::held_out(NAME, model, Score::AnomalyScore)?;
            let rows = scores::held_out(NAME, model, Score::Cost)?.len();
            check_alpha(DEFAULT_ALPHA, rows, model).or_else(|message| plan_err!("{NAME}: {message}"))?;
        }
        Ok(Field::new(NAME, DataType::Struct(fields()), true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let model = batch.model()?;
        let pass = batch.pass()?;
        let held_out = |score| scores::held_out(NAME, model, score);
        let of_costs = held_out(Score::Cost)?;
        let scale = held_out(Score::AnomalyScore)?.scale();
        let costs = scores::ranked(&pass, model, Score::Cost)?;
        let distances = scores::ranked(&pass, model, Score::LatentDistance)?;
        let anomalies = scores::ranked(&pass, model, Score::AnomalyScore)?;
        let anomalies: Float32Array = anomalies.unary::<_, Float32Type>(|anomaly| scale.of(anomaly));
        let p_values: Float64Array = costs.unary(|cost| of_costs.p_value(cost));
        let outliers: BooleanArray = p_values.iter().map(|p| p.map(|p| p <= DEFAULT_ALPHA)).collect();
        let nulls = costs.nulls().cloned();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(costs), Arc::new(distances), Arc::new(anomalies), Arc::new(p_values), Arc::new(outliers)];
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
         `latent_distance`, `anomaly_score`, `p_value` (of the cost) and `is_outlier` (that p-value is at most 0.01).",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path, d['cost'], d['p_value'] FROM (SELECT path, wae_detect(image, 'fashion') AS d FROM 'images.parquet') WHERE d['is_outlier'];",
    related: &["wae_is_outlier"],
};
