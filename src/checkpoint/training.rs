//! The training that made a model, as its file tells it.

use serde::{Deserialize, Serialize};

/// The training that made a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingInfo {
    /// Rows trained on, without the held-out ones.
    pub rows: u64,
    /// Rows held out for calibration.
    pub held_out: u64,
    /// Rows of the source that held no image.
    pub skipped: u64,
    /// The seed of every random choice.
    pub seed: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The time when it ended: RFC 3339, UTC.
    pub created: String,
    /// The version of `wae-core` that trained it.
    pub version: String,
    /// The value used for each option that the configuration does not hold.
    pub options: serde_json::Value,
}
