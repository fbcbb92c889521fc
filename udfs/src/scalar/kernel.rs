//! One scalar function: the trait that its file implements.

use std::fmt::Debug;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Expr;
use wae_core::calibrate::Score;

use crate::documentation::{FunctionDocumentation, example_vector};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::pass::Outputs;
use crate::weights::PinnedNetwork;

/// A call as far as it is known when its outputs are asked for.
pub(crate) struct KnownCall<'a> {
    /// The text of an argument by its position, where it is a string that planning knows.
    pub(crate) text: &'a dyn Fn(usize) -> Option<String>,
    /// The score of a call that names none.
    pub(crate) score: Score,
}

/// A scalar function: its entry in the reference, its type rule and its computation.
pub(crate) trait ScalarKernel: Debug + Send + Sync {
    /// The entry in the SQL reference, with the function's name and parameters.
    fn documentation(&self) -> &'static FunctionDocumentation;

    /// Number of arguments that must be given.
    fn required(&self) -> usize {
        1
    }

    /// Whether the function computes a pass, which the optimiser's rule puts in place of the calls that share it.
    fn is_pass(&self) -> bool {
        false
    }

    /// The position of the model among the arguments of a call, given or not; `None` for a function without a model.
    /// `is_text` tells whether an argument is a string.
    fn model_position(&self, _arguments: usize, _is_text: &dyn Fn(usize) -> bool) -> Option<usize> {
        Some(1)
    }

    /// Outputs of the network on the first argument's image that the result is made from; none for a function that
    /// takes no image. [`Self::run`] makes the result from [`Batch::pass`] and the other arguments alone: the first
    /// argument may be a pass that was computed for other calls too.
    fn outputs(&self, _call: &KnownCall<'_>) -> Outputs {
        Outputs::NONE
    }

    /// Checks, once planning has looked for the type of the image, that it says how the values make an image; the
    /// model's shape is that of a grey list without a type.
    fn check_layout(&self, args: &PlannedArgs<'_>) -> Result<()> {
        args.check_layout()
    }

    /// A type of each argument that the function takes, for `SHOW FUNCTIONS`.
    fn example_types(&self) -> Vec<DataType> {
        let example = |parameter| match parameter {
            "model" | "score" | "format" | "layout" | "outputs" | "function" | "weights" | "layer" | "preparation"
            | "filter" => DataType::Utf8,
            "alpha" => DataType::Float64,
            "height" | "width" | "channels" | "steps" | "size" | "stride" | "y" | "x" => DataType::Int64,
            "latent" | "a" | "b" => example_vector(DataType::Float32),
            _ => DataType::Binary,
        };
        self.documentation().parameters().map(example).collect()
    }

    /// The types that arguments are cast to; most functions take them as they are.
    fn coerce(&self, types: &[DataType]) -> Vec<DataType> {
        types.to_vec()
    }

    /// The pretrained network of a call, with the arguments that name its version; `None` if it has none, or if its
    /// arguments are not known yet. `pinned` is the network that the call holds already.
    fn pin(
        &self,
        _args: &[Expr],
        _options: &WaeOptions,
        _pinned: &PinnedNetwork,
    ) -> Result<Option<(Vec<Expr>, PinnedNetwork)>> {
        Ok(None)
    }

    /// The arguments of a call that say which pretrained network computes it and how, once [`Self::pin`] has named the
    /// version of its files: calls that have the same, of one image, share a pass.
    fn pretrained<'a>(&self, _args: &'a [Expr]) -> Option<&'a [Expr]> {
        None
    }

    /// Bytes at work on `rows` images in a pretrained network, from the values of the arguments that have one.
    fn pretrained_memory(
        &self,
        _literals: &[Option<&ScalarValue>],
        _options: &WaeOptions,
        _pinned: &PinnedNetwork,
        _rows: usize,
    ) -> Result<usize> {
        Ok(0)
    }

    /// Checks the arguments, and gives the result's field.
    ///
    /// Without a model, which is so while a prepared parameter has no value yet, it is a stand-in.
    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field>;

    /// Computes a batch: one value a row.
    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef>;
}
