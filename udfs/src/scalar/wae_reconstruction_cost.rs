//! `wae_reconstruction_cost(image [, model])`: how badly the model reconstructs an image, c(x, G(E(x))).

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;

const NAME: &str = "wae_reconstruction_cost";

/// The function under a session's options.
pub(crate) fn wae_reconstruction_cost_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeReconstructionCost, options)
}

/// c(x, G(E(x))): (H, W, C) -> a number of at least 0.
#[derive(Debug)]
struct WaeReconstructionCost;

impl ScalarKernel for WaeReconstructionCost {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::COST
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(Field::new(NAME, DataType::Float32, true))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        Ok(Arc::new(batch.pass()?.costs()?))
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_reconstruction_cost(image [, model])",
    description: "How far an image is from its reconstruction, by the cost that the model was trained with: by default the squared \
         difference, summed over pixels and channels in [0, 1]; a Float32. Higher is stranger.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path FROM 'images.parquet' ORDER BY wae_reconstruction_cost(image, 'fashion') DESC LIMIT 10;",
    related: &["wae_p_value"],
};
