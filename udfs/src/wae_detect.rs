//! `wae_detect(image [, model])`: every score of an image at once.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, BooleanArray, Float32Array, Float64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float32Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{Documentation, ScalarUDF};
use wae_core::calibrate::Score;

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, SECTION, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;
use crate::scores;
use crate::wae_is_outlier::{DEFAULT_ALPHA, check_alpha};

/// The function under a session's options.
pub(crate) fn wae_detect_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaeDetect>(options.clone()))
}

#[derive(Debug)]
struct WaeDetect;

impl ModelKernel for WaeDetect {
    const NAME: &'static str = "wae_detect";
    const PARAMETERS: &'static [&'static str] = &["image", "model"];

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(_: &Texts<'_>) -> Outputs {
        Outputs::LATENT.union(Outputs::COST).union(Outputs::ANOMALY)
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        args.check_image(model)?;
        scores::check_latent_statistics(Self::NAME, model)?;
        scores::held_out(Self::NAME, model, Score::AnomalyScore)?;
        let rows = scores::held_out(Self::NAME, model, Score::Cost)?.len();
        check_alpha(DEFAULT_ALPHA, rows, model).or_else(|message| plan_err!("{}: {message}", Self::NAME))
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        Ok(Field::new(Self::NAME, DataType::Struct(fields()), true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        let (model, pass) = (batch.model()?, batch.pass()?);
        let held_out = |score| scores::held_out(Self::NAME, model, score);
        let (of_costs, scale) = (held_out(Score::Cost)?, held_out(Score::AnomalyScore)?.scale());
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

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "Every score of an image, from one pass through the network: a struct of `cost` (`wae_reconstruction_cost`), \
         `latent_distance`, `anomaly_score`, `p_value` (of the cost) and `is_outlier` (that p-value is at most 0.01).",
        "wae_detect(image [, model])",
    )
    .with_sql_example("SELECT path, d['cost'], d['p_value'] FROM (SELECT path, wae_detect(image, 'fashion') AS d FROM 'images.parquet') WHERE d['is_outlier'];")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_is_outlier")
    .build()
});
