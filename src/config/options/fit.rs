//! The configuration that options give for images of one shape.

use super::{Augmentation, InputChoice, NetworkChoice, ObjectiveChoice, Preset, TrainOptions};
use crate::config::input::check_cost;
use crate::config::{
    Config, Convolutions, Cost, EncoderKind, Input, Network, Objective, Parts, Score, ScoreScale, name_of,
};
use crate::error::{Error, Result};
use crate::image::{ImageShape, Preprocess};

/// The largest batch of `sinkhorn`, which keeps tables of all pairs: three of 128 MB.
const SINKHORN_BATCH: usize = 4096;
/// The most components of features where the options leave them open.
pub(crate) const AUTO_COMPONENTS: usize = 100;
/// Places of the smaller side of a map from which on convolutions are taken.
const CONVOLVED: usize = 8;
/// Widths of the dense layers for vectors and smaller maps.
const AUTO_DENSE: [usize; 2] = [256, 128];

impl TrainOptions {
    /// The configuration of the model that these options train on images of one shape.
    ///
    /// # Errors
    /// [`Error::Config`] if the options do not fit the images or each other.
    pub fn config(&self, source: ImageShape) -> Result<Config> {
        self.config_of_preprocessed(self.source(source)?)
    }

    /// The configuration for images that have been resized and cropped. Features count as whitened to as many
    /// components as the options allow: fewer may be left once the training rows are known.
    pub(crate) fn config_of_preprocessed(&self, source: ImageShape) -> Result<Config> {
        let channels = match self.model_input() {
            InputChoice::Image => source.channels(),
            InputChoice::Features => self.components.unwrap_or(AUTO_COMPONENTS).min(source.channels()),
        };
        self.config_of(source.with_channels(channels), source)
    }

    /// The configuration for training that begins from a model, on images of one shape: features are whitened as that
    /// model's are.
    ///
    /// # Errors
    /// Those of [`Self::config`].
    pub fn config_from(&self, source: ImageShape, model: &Config) -> Result<Config> {
        match self.model_input() {
            InputChoice::Image => self.config(source),
            InputChoice::Features => {
                let source = self.source(source)?;
                let components = self.components.unwrap_or(model.image().channels().min(source.channels()));
                self.config_of(source.with_channels(components), source)
            }
        }
    }

    /// The configuration for images as the network sees them, and as they come; features are whitened between.
    pub(crate) fn config_of(&self, image: ImageShape, source: ImageShape) -> Result<Config> {
        self.check_together()?;
        self.check_shift(image)?;
        let objective = self.objective_without_lambda();
        let lambda = self.lambda.unwrap_or_else(|| self.auto_lambda(&objective, image));
        let input = match self.model_input() {
            InputChoice::Image => None,
            InputChoice::Features => {
                let layout = self.layout.filter(|_| self.backbone.is_none());
                Some(Input::Features { channels: source.channels(), layout })
            }
        };
        Config::try_new(Parts {
            image,
            latent_dim: self.latent_dim.unwrap_or_else(|| self.auto_latent_dim(image)),
            network: self.network_of(image),
            encoder: self.encoder(),
            prior: self.prior,
            cost: self.cost,
            objective: objective.with_lambda(lambda),
            preprocess: self.own_preprocess(),
            score: Score::AnomalyScore,
            score_scales: self.score_scales(),
            input,
            backbone: self.backbone_config()?,
        })
    }

    fn network_of(&self, image: ImageShape) -> Network {
        let kernel = |default: usize| self.kernel_size.unwrap_or(default);
        let with_kernel = |network: Convolutions| Convolutions { kernel: kernel(network.kernel), ..network };
        let features = self.model_input() == InputChoice::Features;
        let network = match &self.network {
            NetworkChoice::Dense(widths) => return Network::Dense(widths.clone()),
            NetworkChoice::Auto if features && image.height().min(image.width()) < CONVOLVED => {
                return Network::Dense(AUTO_DENSE.to_vec());
            }
            NetworkChoice::Auto if features => Convolutions::auto_of_features(image, kernel(4)),
            NetworkChoice::Auto => Convolutions::auto(image, kernel(4)),
            NetworkChoice::Small => with_kernel(Convolutions::small()),
            NetworkChoice::Mnist => with_kernel(Convolutions::mnist()),
            NetworkChoice::Celeba => with_kernel(Convolutions::celeba()),
            NetworkChoice::Widths(widths) => Convolutions::mirrored(widths.clone(), kernel(4)),
        };
        Network::Convolutions(network)
    }

    fn auto_latent_dim(&self, image: ImageShape) -> usize {
        match self.model_input() {
            InputChoice::Image if image.len() <= 32 * 32 => 8,
            InputChoice::Features if image.height() * image.width() == 1 => image.channels().div_ceil(4).min(64),
            InputChoice::Image | InputChoice::Features => 64,
        }
    }

    /// λ of whitened values is a tenth: most of their directions are noise, which no code can keep.
    fn auto_lambda(&self, objective: &Objective, image: ImageShape) -> f64 {
        let lambda = objective.auto_lambda(self.cost, image, self.prior);
        match self.model_input() {
            InputChoice::Image => lambda,
            InputChoice::Features => lambda / 10.0,
        }
    }

    /// Refuses options that do not go together.
    pub(super) fn check_together(&self) -> Result<()> {
        if self.objective == ObjectiveChoice::Aae && self.cost != Cost::Squared {
            let got = self.cost.name();
            return Err(Error::Config(format!("objective 'aae' is 'gan' with cost 'squared', got cost '{got}'")));
        }
        if let (false, Some(preset)) = (self.augment.is_empty(), self.preset) {
            let preset = name_of(&Preset::ALL, preset);
            return Err(Error::train_option("augment", format!("does not go with preset '{preset}'")));
        }
        if self.objective == ObjectiveChoice::Sinkhorn && self.batch_size > SINKHORN_BATCH {
            let got = self.batch_size;
            let message = format!("objective 'sinkhorn' takes a batch_size of at most {SINKHORN_BATCH}, got {got}");
            return Err(Error::Config(message));
        }
        self.check_backbone()?;
        self.check_input()?;
        self.objective_without_lambda().validate(self.encoder(), self.prior.kind)
    }

    /// Refuses options that are of no use to the kind of input.
    fn check_input(&self) -> Result<()> {
        let with = if self.backbone.is_some() { "backbone" } else { "input => 'features'" };
        let refuse =
            |option: &str, why: &str| Err(Error::train_option(option, format!("does not go with {with}: it is {why}")));
        match self.model_input() {
            InputChoice::Image if self.components.is_some() => {
                Err(Error::train_option("components", "goes with backbone and with input => 'features' only"))
            }
            InputChoice::Image => Ok(()),
            InputChoice::Features if self.preset.is_some() => refuse("preset", "an experiment on images"),
            InputChoice::Features if self.backbone.is_none() && self.crop().is_some() => refuse("crop", "for images"),
            InputChoice::Features if self.backbone.is_none() && self.size().is_some() => refuse("size", "for images"),
            InputChoice::Features if !self.augment.is_empty() => refuse("augment", "for images"),
            InputChoice::Features => check_cost(self.cost),
        }
    }

    /// Refuses to move images by less than a pixel.
    fn check_shift(&self, image: ImageShape) -> Result<()> {
        let least = Augmentation::SHIFT_PARTS;
        if !self.augment.contains(&Augmentation::Shift) || image.height().max(image.width()) >= least {
            return Ok(());
        }
        let message = format!(
            "has 'shift', which moves by up to 1/{least} of a side: expected a side of {least} pixels or more, got {image}"
        );
        Err(Error::train_option("augment", message))
    }

    /// The kind of code, where the options leave it open.
    fn encoder(&self) -> EncoderKind {
        let vae = self.objective == ObjectiveChoice::Vae;
        self.encoder.unwrap_or(if vae { EncoderKind::Gaussian } else { EncoderKind::Deterministic })
    }

    fn objective_without_lambda(&self) -> Objective {
        let lambda = 0.0;
        match self.objective {
            ObjectiveChoice::Mmd => Objective::Mmd { kernel: self.kernel, scales: self.scales.clone(), lambda },
            ObjectiveChoice::Gan | ObjectiveChoice::Aae => {
                let adversary_widths = self.adversary_widths.clone();
                Objective::Gan { adversary_widths, log_p: self.log_p, lambda }
            }
            ObjectiveChoice::Vae => Objective::Vae { lambda },
            ObjectiveChoice::Ae => Objective::Ae {},
            ObjectiveChoice::Sliced => Objective::Sliced { lambda },
            ObjectiveChoice::Sinkhorn => Objective::Sinkhorn { lambda },
        }
    }

    /// The scales of the anomaly map.
    fn score_scales(&self) -> Vec<ScoreScale> {
        match (&self.score_scales, self.model_input()) {
            (Some(scales), _) => scales.clone(),
            (None, InputChoice::Image) => ScoreScale::OF_IMAGES.to_vec(),
            (None, InputChoice::Features) => ScoreScale::OF_FEATURES.to_vec(),
        }
    }

    /// The discriminator's learning rate.
    pub(crate) fn adversary_rate(&self) -> f64 {
        self.adversary_learning_rate.unwrap_or(0.5 * self.learning_rate)
    }

    /// Height and width that images are resized to.
    pub(super) fn size(&self) -> Option<(usize, usize)> {
        self.preprocess.as_ref().and_then(Preprocess::size)
    }

    /// Height and width that images are cropped to.
    pub(super) fn crop(&self) -> Option<(usize, usize)> {
        self.preprocess.as_ref().and_then(Preprocess::crop)
    }
}
