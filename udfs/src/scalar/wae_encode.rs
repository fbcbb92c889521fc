//! `wae_encode(image [, model])`: an image's latent code, z = E(x).

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::columns::code_field;
use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;

const NAME: &str = "wae_encode";

/// The function under a session's options.
pub(crate) fn wae_encode_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeEncode, options)
}

/// z = E(x): (H, W, C) -> (Z,).
#[derive(Debug)]
struct WaeEncode;

impl ScalarKernel for WaeEncode {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::LATENT
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(code_field(NAME, args.model()))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        batch.pass()?.latent()
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_encode(image [, model])",
    description: "The latent code of an image: a FixedSizeList of Float32, as long as the model's latent dimension.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT path, wae_encode(image, 'fashion') AS code FROM 'images.parquet';",
    related: &["wae_decode"],
};
