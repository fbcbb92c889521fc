//! `wae_reconstruct(image [, model])`: an image, encoded and decoded again, G(E(x)).

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::decoded::decoded_field;
use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;

const NAME: &str = "wae_reconstruct";

/// The function under a session's options.
pub(crate) fn wae_reconstruct_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeReconstruct, options)
}

/// y = G(E(x)): (H, W, C) -> (H, W, C).
#[derive(Debug)]
struct WaeReconstruct;

impl ScalarKernel for WaeReconstruct {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::RECONSTRUCTION
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(decoded_field(NAME, args.model()))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        batch.pass()?.reconstruction()
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_reconstruct(image [, model])",
    description: "An image as the model reconstructs it, an image tensor of UInt8: encoded and decoded again. Of features, \
         and of a model with a `backbone`, Float32 in the features' own units, and for vectors a list.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT image_encode(wae_reconstruct(image, 'fashion')) AS png FROM 'images.parquet';",
    related: &["wae_reconstruction_cost"],
};
