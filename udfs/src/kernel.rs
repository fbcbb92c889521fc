//! One function over a model: what its file says of it.

use std::fmt::Debug;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::logical_expr::{DocSection, Documentation, Volatility};

use crate::args::{Batch, PlannedArgs};
use crate::models::LoadedModel;
use crate::pass::Outputs;

/// The section of the SQL reference that the plugin's functions stand in.
pub(crate) const SECTION: DocSection =
    DocSection { include: true, label: "Wasserstein auto-encoder functions", description: None };

/// The description of the argument that holds an image.
pub(crate) const IMAGE_ARGUMENT: &str = "The image: encoded bytes, a struct with a field `bytes`, a tensor or nested \
     lists, of the height, width and channels that the model takes; of any size where it was trained with `size`.";

/// The description of the argument that names a model.
pub(crate) const MODEL_ARGUMENT: &str =
    "The model's name: a string literal or a prepared parameter. Left out, it is the session's `wae.model`.";

/// The text of an argument by its position, where it is a string that planning knows.
pub(crate) type Texts<'a> = dyn Fn(usize) -> Option<String> + 'a;

/// One function over a model: its names, its type rule and its computation.
pub(crate) trait ModelKernel: Debug + Send + Sync + 'static {
    /// The SQL name.
    const NAME: &'static str;
    /// The parameters in order; those after the first may be left out.
    const PARAMETERS: &'static [&'static str];
    /// A model's file can change between statements, but not within one.
    const VOLATILITY: Volatility = Volatility::Stable;

    /// The reference page.
    fn documentation() -> &'static Documentation;

    /// Which of a call's arguments names the model; they may be fewer. `is_text` tells whether one is a string.
    fn model_position(_arguments: usize, _is_text: impl Fn(usize) -> bool) -> usize {
        1
    }

    /// What of a pass of the first argument through the network the result is made from; nothing for a function that
    /// takes no image. [`Self::run`] makes the result from [`Batch::pass`] alone, besides the other arguments: the first
    /// may be a pass that was computed for other calls too.
    fn outputs(_texts: &Texts<'_>) -> Outputs {
        Outputs::NONE
    }

    /// The types that arguments are cast to; most functions take them as they are.
    fn coerce(types: &[DataType]) -> Vec<DataType> {
        types.to_vec()
    }

    /// Checks the arguments against the model, at planning.
    fn check(args: &PlannedArgs<'_>, model: &LoadedModel) -> Result<()>;

    /// The result's field; without a model, which is so while a prepared parameter has no value yet, a stand-in.
    fn field(model: Option<&LoadedModel>) -> Result<Field>;

    /// The same, for a function whose result depends on an argument's text.
    fn field_of_texts(model: Option<&LoadedModel>, _texts: &Texts<'_>) -> Result<Field> {
        Self::field(model)
    }

    /// Computes a batch: one value a row.
    fn run(batch: &Batch<'_>) -> Result<ArrayRef>;
}

/// A [`ModelKernel`] as a value, so that the optimiser finds the calls of all kernels by one type.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) parameters: &'static [&'static str],
    pub(crate) documentation: fn() -> &'static Documentation,
    pub(crate) model_position: fn(usize, &dyn Fn(usize) -> bool) -> usize,
    pub(crate) outputs: fn(&Texts<'_>) -> Outputs,
    pub(crate) coerce: fn(&[DataType]) -> Vec<DataType>,
    pub(crate) check: fn(&PlannedArgs<'_>, &LoadedModel) -> Result<()>,
    pub(crate) field: fn(Option<&LoadedModel>, &Texts<'_>) -> Result<Field>,
    pub(crate) run: fn(&Batch<'_>) -> Result<ArrayRef>,
}

impl Kernel {
    pub(crate) fn of<K: ModelKernel>() -> Self {
        Self {
            name: K::NAME,
            parameters: K::PARAMETERS,
            documentation: K::documentation,
            model_position: |arguments, is_text| K::model_position(arguments, is_text),
            outputs: K::outputs,
            coerce: K::coerce,
            check: K::check,
            field: K::field_of_texts,
            run: K::run,
        }
    }
}
