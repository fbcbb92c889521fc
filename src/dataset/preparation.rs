//! The part of the options that decides what a dataset holds.

use crate::config::{BackboneChoice, InputChoice, TrainOptions};
use crate::image::Preprocess;

/// The options that decide which rows a dataset has, and as what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Preparation {
    preprocess: Option<Preprocess>,
    holdout: f64,
    seed: u64,
    pub(super) input: InputChoice,
    pub(super) components: Option<usize>,
    backbone: Option<BackboneChoice>,
    layer: Option<String>,
}

impl Preparation {
    pub(super) fn of(options: &TrainOptions) -> Self {
        Self {
            preprocess: options.preprocess.clone(),
            holdout: options.holdout,
            seed: options.seed,
            input: options.model_input(),
            components: options.components,
            backbone: options.backbone.clone(),
            layer: options.layer.clone(),
        }
    }
}
