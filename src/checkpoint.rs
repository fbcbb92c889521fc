//! The model file, format `wae/1`.
use crate::{calibrate::Calibration, config::Config, error::Result, train::EpochReport};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How a model was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingInfo {
    /// Rows trained on, without the held-out ones.
    pub rows: u64,
    /// Seed.
    pub seed: u64,
    /// Seconds.
    pub seconds: f64,
    /// RFC 3339 UTC time of completion.
    pub created: String,
    /// wae-core's version
    pub version: String,
    /// The value used for each option.
    pub options: serde_json::Value,
}

/// A model file in memory.
#[derive(Debug, Clone)]
pub struct ModelFile {
    config: Config,
}
impl ModelFile {
    /// Strict reader of untrusted bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let _ = bytes;
        unimplemented!()
    }
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let _ = path;
        unimplemented!()
    }
    /// Serialises.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        unimplemented!()
    }
    /// Writes to a temporary file beside `path`, syncs, renames.
    pub fn write(&self, path: &Path) -> Result<()> {
        let _ = path;
        unimplemented!()
    }
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// A row an epoch.
    pub fn history(&self) -> &[EpochReport] {
        unimplemented!()
    }
    /// Held-out scores.
    pub fn calibration(&self) -> Option<&Calibration> {
        unimplemented!()
    }
    /// How it was trained.
    pub fn training(&self) -> Option<&TrainingInfo> {
        unimplemented!()
    }
    /// Trainable numbers.
    pub fn parameters(&self) -> usize {
        unimplemented!()
    }
}
