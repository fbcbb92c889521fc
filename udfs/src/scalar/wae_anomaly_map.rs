//! `wae_anomaly_map(image [, model])`: how strange each place of an image is, between 0 and 1.
//!
//! `a(p) = ½ (1 + d/(1 + |d|)),  d = f(p) − f₀`
//!
//! Where: f(p) is the size of the residual at a place beside what is usual there
//! ([`AnomalyStatistics`](wae_core::calibrate::AnomalyStatistics)), and f₀ the value of its maximum above which a held-out
//! row's p-value is at most 0.01.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::ScalarUDF;

use crate::columns::map_field;
use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores;

const NAME: &str = "wae_anomaly_map";

/// The function under a session's options.
pub(crate) fn wae_anomaly_map_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeAnomalyMap, options)
}

#[derive(Debug)]
struct WaeAnomalyMap;

impl ScalarKernel for WaeAnomalyMap {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::FIELD
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            scores::scale_of_map(NAME, model)?;
        }
        Ok(map_field(NAME, args.model()))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let scale = scores::scale_of_map(NAME, batch.model()?)?;
        let field = batch.pass()?.field()?;
        let field = field.as_fixed_size_list();
        let values: Float32Array = scores::scaled(field.values().as_primitive::<Float32Type>(), scale);
        let DataType::FixedSizeList(item, length) = field.data_type() else {
            return exec_err!("{NAME}: a list of one length expected, got {}", field.data_type());
        };
        let nulls = field.nulls().cloned();
        Ok(Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *length, Arc::new(values), nulls)?))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_anomaly_map(image [, model])",
    description: "How strange each place of an image is, beside what is usual there: a Float32 tensor, height x width, of the model's \
         input size, or of that of its `backbone`, with values from 0 to 1. Its largest value is `wae_anomaly_score`, and 0.5 the threshold of an outlier at \
         alpha 0.01 without `wae.confidence`. A model of an older version has no such map: see `wae_cost_map`.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT wae_anomaly_map(image, 'fashion') AS map FROM 'images.parquet' ORDER BY wae_p_value(image, 'fashion') LIMIT 10;",
    related: &["wae_anomaly_score", "wae_cost_map"],
};
