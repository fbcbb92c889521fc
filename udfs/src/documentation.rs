//! Entries of the SQL reference: a constant beside each function.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::types::NativeType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::ContextProvider;
use datafusion::logical_expr::{
    Coercion, DocSection, Documentation, Signature, TypeSignature, TypeSignatureClass, Volatility,
};

/// The section of the plugin's functions in a reference.
const SECTION: &str = "Wasserstein auto-encoder functions";

/// The description of the argument that holds an image.
pub(crate) const IMAGE_ARGUMENT: &str = "The image: encoded bytes, a struct with a field `bytes`, a tensor or nested \
     lists, of the height, width and channels that the model takes; of any size where it was trained with `size` or a `backbone`. Or the \
     features of a model of these: a list or tensor of floats.";

/// The description of an image of any form and size.
pub(crate) const ANY_IMAGE_ARGUMENT: &str =
    "The image: encoded bytes, a tensor, or an image of any other form; maps and features, too.";

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

    /// A signature with names for the arguments. The function finds their types itself, and refuses those that do not
    /// fit where it gives the result's type: DataFusion would call it an internal error if `coerce_types` refused one.
    ///
    /// `examples` holds a type of each argument, without which `SHOW FUNCTIONS` would not list the function.
    pub(crate) fn signature(&self, volatility: Volatility, examples: &[DataType]) -> Signature {
        let example = |data_type: &DataType| {
            let native = NativeType::from(data_type.clone());
            Coercion::new_exact(TypeSignatureClass::Native(Arc::new(native)))
        };
        let examples = TypeSignature::Coercible(examples.iter().map(example).collect());
        let kinds = vec![TypeSignature::UserDefined, TypeSignature::Nullary, examples];
        let parameter_names = Some(self.parameters().map(str::to_owned).collect());
        Signature { type_signature: TypeSignature::OneOf(kinds), volatility, parameter_names }
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
        let section = DocSection { include: true, label: SECTION, description: None };
        let page = Documentation::builder(section, self.description, self.syntax).with_sql_example(self.example);
        let page = self.arguments.iter().fold(page, |page, (name, text)| page.with_argument(*name, *text));
        self.related.iter().fold(page, |page, name| page.with_related_udf(*name)).build()
    }
}

/// A type of vectors, as an example.
pub(crate) fn example_vector(number: DataType) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new_list_field(number, true)), 8)
}

/// The entry of the plugin's function of a name that stands in expressions; `None` if there is none.
pub(crate) fn of_expression(name: &str, context: &dyn ContextProvider) -> Option<Documentation> {
    let scalar = context.get_function_meta(name).and_then(|f| f.documentation().cloned());
    let aggregate = || context.get_aggregate_meta(name).and_then(|f| f.documentation().cloned());
    let window = || context.get_window_meta(name).and_then(|f| f.documentation().cloned());
    scalar.or_else(window).or_else(aggregate).filter(|page| page.doc_section.label == SECTION)
}
