//! `wae_pass(image, model, outputs, function)`: a pass of an image through the network, for the optimiser's rule.
//!
//! The rule puts it in place of the calls that share it, and the calls take their results from it. It is named and
//! takes names, so that a plan that travels to another node by names computes there too.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{ScalarUDF, Volatility};

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{ScalarKernel, Texts};
use crate::scalar::pass::Outputs;

/// The position of the outputs among the arguments.
const OUTPUTS: usize = 2;
/// The position of the function's name among the arguments.
const FUNCTION: usize = 3;

/// The function under a session's options.
pub(crate) fn wae_pass_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaePass, options)
}

/// The name of the function.
pub(crate) const NAME: &str = "wae_pass";

/// x -> those outputs that are named, of the table in `pass.rs`.
#[derive(Debug)]
pub(crate) struct WaePass;

impl ScalarKernel for WaePass {
    /// Optimisers copy a stable expression to wherever its column is used, which would compute it again there.
    fn volatility(&self) -> Volatility {
        Volatility::Volatile
    }

    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, texts: &Texts<'_>) -> Outputs {
        texts(OUTPUTS).and_then(|names| Outputs::parse(&names)).unwrap_or(Outputs::NONE)
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        let names = args.text(OUTPUTS)?.unwrap_or_default();
        match Outputs::parse(names) {
            Some(outputs) => Ok(Field::new(NAME, outputs.data_type(args.model()), true)),
            None => plan_err!("{NAME}: outputs must be names of outputs, got '{names}'"),
        }
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        let function = match batch.scalar(FUNCTION, "function")? {
            Some(value) => value.try_as_str().flatten().unwrap_or(NAME).to_owned(),
            None => NAME.to_owned(),
        };
        Ok(batch.on_behalf_of(&function).pass()?.into_array())
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_pass(image, model, outputs, function)",
    description: "What functions of an image take of a pass through the network: a struct. Queries have no use for it; the \
         optimiser's rule calls it.",
    arguments: &[
        ("image", IMAGE_ARGUMENT),
        ("model", MODEL_ARGUMENT),
        (
            "outputs",
            "Of `latent`, `reconstruction`, `cost`, `anomaly` and `map` those needed, with commas between them.",
        ),
        ("function", "The function that errors name."),
    ],
    example: "SELECT wae_encode(wae_pass(image, 'fashion', 'latent', 'wae_encode')) FROM 'images.parquet';",
    related: &[],
};
