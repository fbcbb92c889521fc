//! Entries of the SQL reference: a constant beside each function.

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{DocSection, Documentation, Signature, TypeSignature, Volatility};

/// The description of the argument that holds an image.
pub(crate) const IMAGE_ARGUMENT: &str = "The image: encoded bytes, a struct with a field `bytes`, a tensor or nested \
     lists, of the height, width and channels that the model takes; of any size where it was trained with `size`.";

/// The description of the argument that names a model.
pub(crate) const MODEL_ARGUMENT: &str =
    "The model's name: a string literal or a prepared parameter. Left out, it is the session's `wae.model`.";

/// The description of the argument that holds a latent code.
pub(crate) const LATENT_ARGUMENT: &str =
    "The latent code: a FixedSizeList, List or LargeList of numbers, as many as the model's latent dimension.";

/// The entry of a function in the SQL reference, from which the names of its parameters come too.
#[derive(Debug)]
pub(crate) struct FunctionDocumentation {
    /// The SQL name.
    pub(crate) name: &'static str,
    /// A call, with brackets around arguments that may be left out.
    pub(crate) syntax: &'static str,
    /// The function's effect and its result.
    pub(crate) description: &'static str,
    /// Each parameter with its meaning, in order.
    pub(crate) arguments: &'static [(&'static str, &'static str)],
    /// A statement that uses the function.
    pub(crate) example: &'static str,
    /// Functions to read of next.
    pub(crate) related: &'static [&'static str],
}

impl FunctionDocumentation {
    /// The names of the parameters, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.arguments.iter().map(|(name, _)| *name)
    }

    /// The name of the parameter at a position.
    pub(crate) fn parameter(&self, position: usize) -> Option<&'static str> {
        self.arguments.get(position).map(|(name, _)| *name)
    }

    /// The names of the parameters, with commas between them.
    pub(crate) fn parameter_list(&self) -> String {
        self.parameters().collect::<Vec<_>>().join(", ")
    }

    /// A signature with names for the arguments, whose types the function checks itself.
    pub(crate) fn signature(&self, volatility: Volatility) -> Signature {
        Signature {
            type_signature: TypeSignature::UserDefined,
            volatility,
            parameter_names: Some(self.parameters().map(str::to_owned).collect()),
        }
    }

    /// Checks the number of arguments: the first `required` must be given.
    pub(crate) fn check_arity(&self, required: usize, given: usize) -> Result<()> {
        let most = self.arguments.len();
        if (required..=most).contains(&given) {
            return Ok(());
        }
        let name = self.name;
        let names = self.parameter_list();
        match most {
            1 => plan_err!("{name} takes 1 argument ({names}), got {given}"),
            most if most == required => plan_err!("{name} takes {most} arguments ({names}), got {given}"),
            most => plan_err!("{name} takes {required} to {most} arguments ({names}), got {given}"),
        }
    }

    /// The entry in DataFusion's form.
    pub(crate) fn page(&self) -> Documentation {
        let section = DocSection { include: true, label: "Wasserstein auto-encoder functions", description: None };
        let page = Documentation::builder(section, self.description, self.syntax).with_sql_example(self.example);
        let page = self.arguments.iter().fold(page, |page, (name, text)| page.with_argument(*name, *text));
        self.related.iter().fold(page, |page, name| page.with_related_udf(*name)).build()
    }
}
