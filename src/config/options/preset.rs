//! The experiments of the paper's authors, with every number in this crate's units.

use super::{Initialisation, NetworkChoice, ObjectiveChoice, Schedule, TrainOptions};
use crate::config::ADVERSARY_WIDTHS;
use crate::error::Result;
use crate::image::Preprocess;

/// All options of an experiment of the paper, for those that are not given otherwise.
///
/// The authors' λ weighs a cost that they multiply by 0.05, and their CelebA pixels lie in [−1, 1], where a squared
/// difference is four times as large and noise is twice as strong: their λ of 10, 100 and 1 become 200, 500 and 5, and
/// their noise of 0.01 becomes 0.005 for CelebA.
///
/// # Source
/// The authors' `configs.py`; epochs, learning rates and λ of WAE-GAN on CelebA from the paper's appendix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// `config_mnist`.
    PaperMnist,
    /// `config_celebA`.
    PaperCeleba,
}

impl Preset {
    /// Every preset under its name, as `preset =>` takes it.
    pub(crate) const ALL: [(&'static str, Self); 2] =
        [("paper-mnist", Self::PaperMnist), ("paper-celeba", Self::PaperCeleba)];

    /// The options of the experiment with one objective. Those that the paper does not have take `auto` for λ.
    pub(super) fn options(self, objective: ObjectiveChoice) -> Result<TrainOptions> {
        let adversarial = matches!(objective, ObjectiveChoice::Gan | ObjectiveChoice::Aae);
        let common = TrainOptions {
            objective,
            noise: 0.01,
            pretrain: true,
            initialisation: Initialisation::Normal,
            preset: Some(self),
            ..TrainOptions::default()
        };
        let lambda = |mmd: f64, gan: f64| match objective {
            ObjectiveChoice::Mmd => Some(mmd),
            ObjectiveChoice::Gan | ObjectiveChoice::Aae => Some(gan),
            _ => None,
        };
        Ok(match self {
            Self::PaperMnist => TrainOptions {
                epochs: 100,
                schedule: Schedule::Manual,
                network: NetworkChoice::Mnist,
                latent_dim: Some(8),
                lambda: lambda(200.0, 200.0),
                adversary_widths: ADVERSARY_WIDTHS.to_vec(),
                adversary_learning_rate: Some(5e-4),
                ..common
            },
            Self::PaperCeleba => TrainOptions {
                epochs: 55,
                noise: 0.005,
                log_p: adversarial,
                learning_rate: if adversarial { 3e-4 } else { 1e-3 },
                schedule: Schedule::Smooth,
                network: NetworkChoice::Celeba,
                latent_dim: Some(64),
                lambda: lambda(500.0, 5.0),
                adversary_widths: vec![1024; 4],
                adversary_learning_rate: Some(1e-3),
                preprocess: Some(Preprocess::try_new(Some((140, 140)), Some((64, 64)))?),
                ..common
            },
        })
    }
}
