//! The configuration that options give for images of one shape.

use super::{NetworkChoice, ObjectiveChoice, TrainOptions};
use crate::config::{Config, Cost, EncoderKind, Network, Objective, Parts, Score, ScoreScale};
use crate::error::{Error, Result};
use crate::image::{ImageShape, Preprocess};

/// The largest batch of `sinkhorn`, which keeps tables of all pairs: three of 128 MB.
const SINKHORN_BATCH: usize = 4096;

impl TrainOptions {
    /// The configuration of the model that these options train on images of one shape.
    ///
    /// # Errors
    /// [`Error::Config`] if the options do not fit the images or each other.
    pub fn config(&self, source: ImageShape) -> Result<Config> {
        self.config_of_preprocessed(self.preprocess.as_ref().map_or(source, |p| p.output(source)))
    }

    /// The configuration for images that have been resized and cropped.
    pub(crate) fn config_of_preprocessed(&self, image: ImageShape) -> Result<Config> {
        let kernel = |default: usize| self.kernel_size.unwrap_or(default);
        let with_kernel = |network: Network| Network { kernel: kernel(network.kernel), ..network };
        let network = match &self.network {
            NetworkChoice::Auto => Network::auto(image, kernel(4)),
            NetworkChoice::Small => with_kernel(Network::small()),
            NetworkChoice::Mnist => with_kernel(Network::mnist()),
            NetworkChoice::Celeba => with_kernel(Network::celeba()),
            NetworkChoice::Widths(widths) => Network::mirrored(widths.clone(), kernel(4)),
        };
        let latent_dim = self.latent_dim.unwrap_or(if image.len() <= 32 * 32 { 8 } else { 64 });
        self.check_together()?;
        let objective = self.objective_without_lambda();
        let lambda = self.lambda.unwrap_or_else(|| objective.auto_lambda(self.cost, image, self.prior));
        Config::try_new(Parts {
            image,
            latent_dim,
            network,
            encoder: self.encoder(),
            prior: self.prior,
            cost: self.cost,
            objective: objective.with_lambda(lambda),
            preprocess: self.preprocess.clone(),
            score: Score::AnomalyScore,
            score_scales: self.score_scales.clone().unwrap_or_else(|| ScoreScale::OF_IMAGES.to_vec()),
        })
    }

    /// Refuses options that do not go together.
    pub(super) fn check_together(&self) -> Result<()> {
        if self.objective == ObjectiveChoice::Aae && self.cost != Cost::Squared {
            let got = self.cost.name();
            return Err(Error::Config(format!("objective 'aae' is 'gan' with cost 'squared', got cost '{got}'")));
        }
        if self.objective == ObjectiveChoice::Sinkhorn && self.batch_size > SINKHORN_BATCH {
            let got = self.batch_size;
            let message = format!("objective 'sinkhorn' takes a batch_size of at most {SINKHORN_BATCH}, got {got}");
            return Err(Error::Config(message));
        }
        self.objective_without_lambda().validate(self.encoder(), self.prior.kind)
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
