//! A call of a pretrained network: which one, its layers, and what is done to an image before.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{Expr, lit};
use wae_core::backbone::{Backbone, FeatureShape, LayerSelection};
use wae_core::image::tensor_field;

use crate::columns::{buffer, fixed_size_list, scatter};
use crate::error::{exec_error, plan_error};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::row_args;
use crate::weights::{self, PinnedNetwork};

/// The function that messages name.
pub(super) const NAME: &str = "image_features";
/// Positions of the arguments `weights`, `layer` and `size`.
const WEIGHTS: usize = 1;
const LAYER: usize = 2;
const SIZE: usize = 3;
/// Images that are decoded and prepared at a time, as many as pass through the network together.
const IMAGES: usize = 16;

/// The network of a call, its layers, and the size that images are resized to.
pub(super) struct FeaturesCall {
    weights: String,
    backbone: Arc<Backbone>,
    layers: LayerSelection,
    /// `None` where images are resized and cropped as the network's files say.
    size: Option<(usize, usize)>,
    /// The (height, width) that the network sees.
    seen: (usize, usize),
    shape: FeatureShape,
}

impl FeaturesCall {
    /// The call of the values that arguments have, by their positions; `pinned` is the network that it holds already.
    ///
    /// # Errors
    /// A plan error if there are no such weights, or if the network has no such layers or takes no such size.
    pub(super) fn try_new(
        options: &WaeOptions,
        pinned: &PinnedNetwork,
        value: impl Fn(usize) -> Option<ScalarValue>,
    ) -> Result<Self> {
        let text = |i: usize| value(i).and_then(|value| value.try_as_str().flatten().map(str::to_owned));
        let size = value(SIZE).map_or(Ok(None), |size| size_of(&size))?;
        let weights = text(WEIGHTS).unwrap_or_default();
        let backbone = pinned.load(NAME, &weights, options)?;
        let (weights, _) = weights::split_version(&weights);
        let layers = backbone.layer_selection(text(LAYER).as_deref()).map_err(|e| plan_error(NAME, &e))?;
        let Some(seen) = size.or_else(|| backbone.preprocessing().input_size()) else {
            return plan_err!(
                "{NAME}: weights '{weights}' come without the size of images, expected the argument size"
            );
        };
        let shape = backbone.shape_of(&layers, seen).map_err(|e| plan_error(NAME, &e))?;
        Ok(Self { weights: weights.to_owned(), backbone, layers, size, seen, shape })
    }

    /// The call that planning sees; `None` while a prepared parameter of it has no value yet.
    ///
    /// # Errors
    /// Those of [`Self::try_new`], and a plan error if an argument is no literal.
    pub(super) fn of_planned(args: &PlannedArgs<'_>) -> Result<Option<Self>> {
        if [WEIGHTS, LAYER, SIZE].iter().any(|i| args.is_placeholder(*i)) {
            return Ok(None);
        }
        args.text(WEIGHTS)?;
        if !args.literal(LAYER).is_some_and(ScalarValue::is_null) {
            args.text(LAYER)?;
        }
        if let (Some(field), None) = (args.field(SIZE), args.literal(SIZE)) {
            return plan_err!("{NAME}: size must be a literal, got an expression of type {}", field.data_type());
        }
        Self::try_new(args.options(), &args.network, |i| args.literal(i).cloned()).map(Some)
    }

    /// The call of a batch.
    ///
    /// # Errors
    /// Those of [`Self::try_new`], and an execution error if an argument differs from row to row.
    pub(super) fn of_batch(batch: &Batch<'_>) -> Result<Self> {
        let mut values = [const { None }; SIZE + 1];
        for (i, parameter) in [(WEIGHTS, "weights"), (LAYER, "layer"), (SIZE, "size")] {
            values[i] = batch.scalar(i, parameter)?;
        }
        Self::try_new(batch.options(), &batch.network, |i| values[i].clone())
    }

    /// The call of expressions; `None` where one is no literal of a type that it takes, which planning refuses.
    ///
    /// # Errors
    /// Those of [`Self::try_new`].
    pub(super) fn of_exprs(args: &[Expr], options: &WaeOptions, pinned: &PinnedNetwork) -> Result<Option<Self>> {
        let literal = |i: usize| match args.get(i) {
            Some(Expr::Literal(value, _)) => Some(value),
            _ => None,
        };
        let is_text = |i: usize| literal(i).is_some_and(|value| value.is_null() || value.data_type().is_string());
        let are_literals = (WEIGHTS..args.len()).all(|i| literal(i).is_some());
        if !are_literals || !is_text(WEIGHTS) || (args.len() > LAYER && !is_text(LAYER)) {
            return Ok(None);
        }
        Self::try_new(options, pinned, |i| literal(i).cloned()).map(Some)
    }

    /// The arguments that say it in full, in one way: weights with the version of their files, layers, and the size.
    pub(super) fn arguments(&self) -> [Expr; 3] {
        let version = weights::versioned(&self.weights, self.backbone.sha256());
        let size = self.size.map(|(height, width)| format!("{height}x{width}"));
        [lit(version), lit(self.layers.name()), lit(ScalarValue::Utf8(size))]
    }

    /// The network, for the calls that take the place of this one.
    pub(super) fn network(&self) -> PinnedNetwork {
        PinnedNetwork::new(Arc::clone(&self.backbone))
    }

    /// Whether arguments are such as [`Self::arguments`] gives.
    pub(super) fn pinned(args: &[Expr]) -> Option<&[Expr]> {
        let arguments = args.get(WEIGHTS..=SIZE)?;
        let Expr::Literal(weights, _) = &arguments[0] else { return None };
        let is_pinned =
            weights.try_as_str().flatten().is_some_and(|weights| weights::split_version(weights).1.is_some());
        (is_pinned && arguments.iter().all(|arg| matches!(arg, Expr::Literal(..)))).then_some(arguments)
    }

    /// The network, and what is done to an image before it sees it, for EXPLAIN.
    pub(super) fn preparation(&self) -> String {
        format!("{}: {}", self.backbone.family(), self.backbone.preprocessing().resized(self.size))
    }

    /// The field of the result.
    pub(super) fn field(&self) -> Field {
        match self.shape {
            FeatureShape::Map(map) => {
                let dims = [("H", map.height()), ("W", map.width()), ("C", map.channels())];
                tensor_field(NAME, DataType::Float32, &dims, true)
            }
            FeatureShape::Vector(channels) => list_field(channels),
        }
    }

    /// Bytes at work on so many images, with their features.
    pub(super) fn memory(&self, rows: usize) -> Result<usize> {
        self.backbone.working_memory(&self.layers, self.seen, rows).map_err(|e| plan_error(NAME, &e))
    }

    /// The features of a batch's images, as a column of the type of [`Self::field`]; `None` of an untyped NULL.
    ///
    /// # Errors
    /// Those of reading the images, of which the first is named.
    pub(super) fn compute(&self, batch: &Batch<'_>) -> Result<Option<ArrayRef>> {
        let batch = batch.on_behalf_of(NAME);
        let Some(column) = batch.images_in_order(None, None)? else { return Ok(None) };
        let limits = batch.options().limits();
        let mut values = buffer(NAME, batch.rows(), self.shape.len())?;
        let mut valid = vec![false; batch.rows()];
        let read = |row: usize| self.backbone.prepare(&column.image(row, Some(3), &limits)?, self.size);
        batch.map_chunks(&column, IMAGES, read, |rows, images| {
            let features = self.backbone.features_of_prepared(&images, &self.layers);
            for (row, features) in rows.iter().zip(features.map_err(|e| exec_error(NAME, &e))?) {
                scatter(&mut values, &[*row], features.values());
                valid[*row] = true;
            }
            Ok(())
        })?;
        fixed_size_list(&self.field(), Arc::new(Float32Array::from(values)), valid.into()).map(Some)
    }
}

/// The field of vectors of one length.
pub(super) fn list_field(length: usize) -> Field {
    let item = Field::new_list_field(DataType::Float32, true);
    Field::new(NAME, DataType::FixedSizeList(Arc::new(item), length as i32), true)
}

/// Refuses features of another type than planning promised.
pub(super) fn check_planned(planned: &Field, features: &DataType) -> Result<()> {
    if planned.data_type() == features {
        return Ok(());
    }
    exec_err!("{NAME}: the weights were replaced while the query was planned, expected one version")
}

fn size_of(value: &ScalarValue) -> Result<Option<(usize, usize)>> {
    row_args::size_of(value).or_else(|message| plan_err!("{NAME}: size {message}"))
}
