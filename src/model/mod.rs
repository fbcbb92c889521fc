//! The auto-encoder.
use crate::{calibrate::Calibration, checkpoint::ModelFile, config::Config, error::Result};

/// The number of trainable parameters of a configuration (saturating).
pub(crate) fn parameters(config: &Config) -> usize {
    let _ = config;
    0
}

/// A trained model, ready for inference. Cheap to share behind an Arc; all methods take &self and compute on rayon.
#[derive(Debug)]
pub struct Wae {
    config: Config,
}
impl Wae {
    /// Folds norms and packs weights.
    pub fn try_new(file: &ModelFile) -> Result<Self> {
        let _ = file;
        unimplemented!()
    }
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Held-out scores.
    pub fn calibration(&self) -> Option<&Calibration> {
        unimplemented!()
    }
    /// (N, H, W, C) in [0, 1] -> (N, Z). Panics never; fails when the length is no multiple of H·W·C.
    pub fn encode(&self, images: &[f32]) -> Result<Vec<f32>> {
        let _ = images;
        unimplemented!()
    }
    /// (N, Z) -> (N, H, W, C) in [0, 1].
    pub fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        let _ = codes;
        unimplemented!()
    }
    /// c(x, y) a row: (N, H, W, C) twice -> (N,).
    pub fn costs(&self, images: &[f32], reconstructions: &[f32]) -> Result<Vec<f32>> {
        let _ = (images, reconstructions);
        unimplemented!()
    }
    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        0
    }
}
