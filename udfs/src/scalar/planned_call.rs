//! A function as the rules of planning see it: what a call of it computes with, and the same function planned further.

use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, ScalarUDFImpl};

use crate::models::pin::Pin;
use crate::options::WaeOptions;
use crate::scalar::function::{KernelFunction, text};
use crate::scalar::kernel::KnownCall;
use crate::scalar::pass::Outputs;
use crate::scalar::planned_image::PlannedImage;
use crate::scalar::scores;
use crate::weights::PinnedNetwork;

impl KernelFunction {
    /// The same function, computed by one version of a model.
    pub(crate) fn pin(mut self, pin: Pin) -> Self {
        self.options = pin.options().clone();
        self.pinned = Some(pin);
        self
    }

    /// The version of the model that the function holds, if planning got so far.
    pub(crate) fn pinned(&self) -> Option<&Pin> {
        self.pinned.as_ref()
    }

    /// The same function, computed by one version of a pretrained network.
    pub(crate) fn with_network(mut self, network: PinnedNetwork) -> Self {
        self.network = network;
        self
    }

    /// The version of the pretrained network that the function holds.
    pub(crate) fn network(&self) -> &PinnedNetwork {
        &self.network
    }

    /// The options that it was planned under.
    pub(crate) fn options(&self) -> &WaeOptions {
        &self.options
    }

    /// Whether the function computes a pass.
    pub(crate) fn is_pass(&self) -> bool {
        self.kernel.is_pass()
    }

    /// The arguments of a call that say which pretrained network computes it and how, if planning got so far.
    pub(crate) fn pretrained<'b>(&self, args: &'b [Expr]) -> Option<&'b [Expr]> {
        self.kernel.pretrained(self.split(args).0)
    }

    /// Bytes at work on `rows` images in the network of a call, from the values of the arguments that have one.
    ///
    /// # Errors
    /// Those of [`Pin::model`] and of reading weights: on another node than the planning one they are read here.
    pub(crate) fn memory(&self, literals: &[Option<&ScalarValue>], rows: usize) -> Result<usize> {
        match &self.pinned {
            Some(pin) => Ok(pin.model(self.name())?.wae().scoring_memory(rows)),
            None => self.kernel.pretrained_memory(literals, &self.options, &self.network, rows),
        }
    }

    /// Whether the function computes with a model.
    pub(crate) fn is_over_model(&self) -> bool {
        self.kernel.model_position(0, &|_| false).is_some()
    }

    /// The same function, of an image whose type planning has found, and with the path of its file as the last argument
    /// if `path` says so.
    pub(crate) fn of_image(&self, image: PlannedImage, path: bool) -> Self {
        let mut function = self.clone();
        function.image = image;
        function.path = path;
        function
    }

    /// The same function, of a call with these arguments.
    pub(crate) fn with_literals(self, args: &[Expr]) -> Self {
        let is_literal = |i: &usize| matches!(args.get(*i), Some(Expr::Literal(..)));
        let literals = (0..args.len().min(32)).filter(is_literal).fold(0, |bits, i| bits | 1 << i);
        let mut function = self;
        function.literals = Some(literals);
        function
    }

    /// The type of the image.
    pub(crate) fn image(&self) -> &PlannedImage {
        &self.image
    }

    /// Whether the first argument is an image.
    pub(crate) fn takes_image(&self, args: &[Expr]) -> bool {
        !self.is_over_model() || self.outputs(args) != Outputs::NONE
    }

    /// Whether a call says itself in which order the values of its image stand.
    pub(crate) fn states_layout(&self, args: &[Expr]) -> bool {
        self.kernel.documentation().parameters().nth(self.split(args).0.len() - 1) == Some("layout")
    }

    /// The arguments that the user wrote, and the path of the image's file.
    pub(crate) fn split<'b, T>(&self, args: &'b [T]) -> (&'b [T], Option<&'b T>) {
        match args.split_last() {
            Some((path, own)) if self.path => (own, Some(path)),
            _ => (args, None),
        }
    }

    /// Outputs of the network that a call needs; none if it takes no image.
    pub(crate) fn outputs(&self, args: &[Expr]) -> Outputs {
        let text = |i| match self.split(args).0.get(i) {
            Some(Expr::Literal(value, _)) => text(value),
            _ => None,
        };
        let model = self.pinned.as_ref().and_then(Pin::loaded);
        self.kernel.outputs(&KnownCall { text: &text, score: scores::default_score(model, &self.options) })
    }
}
