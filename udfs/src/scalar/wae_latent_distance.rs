//! `wae_latent_distance(image [, model])`: how far an image's code is from the training codes.
//!
//! `d(z) = √((z − μ)ᵀ P (z − μ))`
//!
//! Where: μ is the mean of training codes, and P their precision matrix (`wae_core::calibrate::LatentStatistics`).

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;
use wae_core::calibrate::Score;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;
use crate::scalar::scores;

const NAME: &str = "wae_latent_distance";

/// The function under a session's options.
pub(crate) fn wae_latent_distance_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeLatentDistance, options)
}

#[derive(Debug)]
struct WaeLatentDistance;

impl ScalarKernel for WaeLatentDistance {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        scores::outputs(Score::LatentDistance)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        if let Some(model) = args.model() {
            scores::check_latent_statistics(NAME, model)?;
        }
        Ok(Field::new(NAME, DataType::Float32, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(scores::ranked(&batch.pass()?, batch.model()?, Score::LatentDistance)?))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_latent_distance(image [, model])",
    description: "The Mahalanobis distance of an image's latent code from the codes of the training rows; a Float32 of at least 0. It \
         tells codes that training did not make. It need not be high for a strange image, which may well be encoded near \
         the middle: compare it with `auroc` before you rely on it.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path FROM 'images.parquet' ORDER BY wae_latent_distance(image, 'fashion') DESC LIMIT 10;",
    related: &["wae_anomaly_score"],
};
