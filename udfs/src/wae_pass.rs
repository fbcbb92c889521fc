//! `wae_pass(image, model, outputs, function)`: a pass of an image through the network, for the optimiser's rule.
//!
//! The rule puts it in place of the calls that share it, and the calls take their results from it. It is named and
//! takes names, so that a plan that travels to another node by names computes there too.

use std::sync::LazyLock;

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{DocSection, Documentation, ScalarUDF, Volatility};

use crate::args::{Batch, PlannedArgs};
use crate::function::{IMAGE_ARGUMENT, MODEL_ARGUMENT, ModelFunction, ModelKernel, Texts};
use crate::models::LoadedModel;
use crate::options::WaeOptions;
use crate::pass::Outputs;

/// The position of the outputs among the arguments.
const OUTPUTS: usize = 2;
/// The position of the function's name among the arguments.
const FUNCTION: usize = 3;

/// The function under a session's options.
pub(crate) fn wae_pass_udf(options: &WaeOptions) -> ScalarUDF {
    ScalarUDF::from(ModelFunction::new::<WaePass>(options.clone()))
}

/// The name of the function.
pub(crate) const NAME: &str = WaePass::NAME;

/// x -> those outputs that are named, of the table in `pass.rs`.
#[derive(Debug)]
pub(crate) struct WaePass;

impl ModelKernel for WaePass {
    const NAME: &'static str = "wae_pass";
    const PARAMETERS: &'static [&'static str] = &["image", "model", "outputs", "function"];
    /// Optimisers copy a stable expression to wherever its column is used, which would compute it again there.
    const VOLATILITY: Volatility = Volatility::Volatile;

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn outputs(texts: &Texts<'_>) -> Outputs {
        texts(OUTPUTS).and_then(|names| Outputs::parse(&names)).unwrap_or(Outputs::NONE)
    }

    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()> {
        match args.text(OUTPUTS)? {
            Some(names) if Outputs::parse(names).is_some() => args.check_image(model),
            got => plan_err!("{NAME}: outputs must be names of outputs, got '{}'", got.unwrap_or_default()),
        }
    }

    fn field(_: Option<&LoadedModel>) -> Result<Field> {
        plan_err!("{NAME}: the result's type depends on the outputs")
    }

    fn field_of_texts(model: Option<&LoadedModel>, texts: &Texts<'_>) -> Result<Field> {
        Ok(Field::new(NAME, Self::outputs(texts).data_type(model), true))
    }

    fn run(batch: &Batch<'_>) -> Result<ArrayRef> {
        let function = match batch.scalar(FUNCTION, "function")? {
            Some(value) => value.try_as_str().flatten().unwrap_or(NAME).to_owned(),
            None => NAME.to_owned(),
        };
        Ok(batch.on_behalf_of(&function).pass()?.into_array())
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    let section = DocSection { include: false, label: "Internal", description: None };
    Documentation::builder(
        section,
        "What functions of an image take of a pass through the network: a struct. Queries have no use for it; the \
         optimiser's rule calls it.",
        "wae_pass(image, model, outputs, function)",
    )
    .with_sql_example("SELECT wae_encode(wae_pass(image, 'fashion', 'latent', 'wae_encode')) FROM 'images.parquet';")
    .with_argument("image", IMAGE_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_argument(
        "outputs",
        "Of `latent`, `reconstruction`, `cost`, `anomaly` and `map` those needed, with commas between them.",
    )
    .with_argument("function", "The function that errors name.")
    .build()
});
