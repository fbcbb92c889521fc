//! A check that the weights of one model fit another.

use super::Config;
use crate::error::{Error, Result};

impl Config {
    /// Refuses a model whose encoder and decoder have other tensors than this configuration's.
    ///
    /// The prior, the cost, the objective and its discriminator may differ: they are the aim of a training, not its
    /// network.
    ///
    /// # Errors
    /// [`Error::ModelArchitecture`] with the first part that differs.
    pub fn check_same_architecture(&self, model: &Config) -> Result<()> {
        let parts = |config: &Config| {
            let [encoder, decoder, kernel] = config.network().parts();
            let backbone = config.backbone();
            [
                ("backbone", backbone.map_or("none", |backbone| &backbone.sha256).to_owned()),
                ("layer", backbone.map_or("none", |backbone| &backbone.layer).to_owned()),
                ("images of", config.source().to_string()),
                ("components", config.image().channels().to_string()),
                ("latent_dim", config.latent_dim().to_string()),
                encoder,
                decoder,
                kernel,
                ("encoder", format!("{:?}", config.encoder()).to_lowercase()),
            ]
        };
        match parts(model).into_iter().zip(parts(self)).find(|(model, this)| model != this) {
            Some(((part, got), (_, expected))) => {
                Err(Error::ModelArchitecture { part: part.to_owned(), expected, got })
            }
            None => Ok(()),
        }
    }
}
