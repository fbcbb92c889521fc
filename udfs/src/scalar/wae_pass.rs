//! `wae_pass(image, model, outputs, function)`: a pass of an image through the network, for the optimiser's rule.
//!
//! The rule puts it in place of the calls that share it, and the calls take their results from it. No query calls it,
//! so that it is not registered; [`crate::distributed`] makes it from its name, where a plan travels to another node.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::ScalarUDF;

use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
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
    fn is_pass(&self) -> bool {
        true
    }

    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, call: &KnownCall<'_>) -> Outputs {
        (call.text)(OUTPUTS).and_then(|names| Outputs::parse(&names)).unwrap_or(Outputs::NONE)
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
    description: "The outputs of the network that functions of an image take: a struct. Queries have no use for it; the optimiser's \
         rule calls it.",
    arguments: &[
        ("image", IMAGE_ARGUMENT),
        ("model", MODEL_ARGUMENT),
        (
            "outputs",
            "Of `latent`, `reconstruction`, `cost`, `anomaly`, `field`, `parts` and `cost_map` those needed, with commas \
             between them.",
        ),
        ("function", "The function that errors name."),
    ],
    example: "SELECT wae_encode(wae_pass(image, 'fashion', 'latent', 'wae_encode')) FROM 'images.parquet';",
    related: &[],
};

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::DataType;
    use datafusion::common::ScalarValue;
    use datafusion::logical_expr::ReturnFieldArgs;

    use super::*;

    /// The field of a call whose model is a prepared parameter, without a value yet.
    fn planned(outputs: &str) -> Result<Arc<Field>> {
        let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, false));
        let image = Arc::new(Field::new("image", DataType::Binary, true));
        let outputs = ScalarValue::from(outputs);
        let arg_fields = [image, Arc::new(Field::new("$1", DataType::Null, true)), text("outputs")];
        let args = ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &[None, None, Some(&outputs)] };
        wae_pass_udf(&WaeOptions::default()).return_field_from_args(args)
    }

    #[test]
    fn a_pass_has_the_outputs_that_are_named() {
        let field = planned("cost,latent").unwrap();
        let DataType::Struct(fields) = field.data_type() else { panic!("{field}") };
        assert_eq!(fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["wae.latent", "wae.cost"]);
        let error = planned("code").unwrap_err().strip_backtrace();
        assert!(error.contains("wae_pass: outputs must be names of outputs, got 'code'"), "{error}");
    }
}
