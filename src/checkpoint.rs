//! The model file, formats `wae/1` and `wae/2`: one safetensors file that holds weights, configuration, history and
//! calibration.
//!
//! # Metadata
//! | key | holds |
//! |---|---|
//! | `format` | `wae/1`, or `wae/2` where the configuration has `score_scales` or `input` |
//! | `config` | JSON of a [`Config`]: the image's shape, network, prior, cost, objective, input, score, backbone, ... |
//! | `history` | JSON: an [`EpochReport`] an epoch; may be missing |
//! | `training` | JSON of a [`TrainingInfo`]: rows, seed, options; may be missing |
//!
//! A configuration, of a small network for 28×28 grey images:
//!
//! ```json
//! {"image": {"height": 28, "width": 28, "channels": 1}, "latent_dim": 8,
//!  "network": {"encoder_channels": [16, 32], "decoder_channels": [32, 16], "kernel": 4},
//!  "encoder": "deterministic", "prior": {"kind": "normal", "scale": 1.0}, "cost": "squared",
//!  "objective": {"kind": "mmd", "kernel": "imq", "scales": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], "lambda": 200.0}}
//! ```
//!
//! # Tensors
//! They have PyTorch's names and layouts, so that a PyTorch module of the same architecture loads them by name:
//! `fixtures/golden/reference.py` in the repository has one.
//!
//! | tensor | holds |
//! |---|---|
//! | `encoder.*`, `decoder.*` | the network: `encoder.0.conv.weight`, `decoder.stem.bias`, ... |
//! | `adversary.*` | the discriminator of a model of objective `gan` |
//! | `score.usual`, `score.levels` | of `wae/2`: what is usual at each place of the anomaly map, (H, W), and at each scale, (S, 2) |
//! | `calibration.costs`, `calibration.latent_distances`, `calibration.anomaly_scores` | sorted scores of the held-out rows |
//! | `input.mean`, `input.projection`, `input.deviation` | the whitening of features, (C), (C, k) and (k) |
//! | `backbone.*` | a pretrained network up to its layer, in timm's names and the types that it came in |
//! | `calibration.latent_mean`, `calibration.latent_precision` | where the training codes lie: their mean and precision |
//!
//! The held-out anomaly scores are those that p-values rank: of `wae/2` the largest place of the map before it is scaled,
//! of `wae/1` the structural cost.
//!
//! # Safety of reading and writing
//! Files are untrusted. A reader checks the configuration's bounds first, then each tensor's name, type and shape
//! against the configuration, before it allocates anything for them; nothing in a file is ever executed. A writer goes
//! through a temporary file beside the target, synced and then renamed, so that there is always the old model or the
//! new one.
//!
//! A training that was stopped goes on from a [`Checkpoint`], a file of the same kind and of another format.

mod anomaly;
mod backbone;
mod differences;
mod files;
mod format;
mod held_out;
mod history;
mod input;
mod resume;
mod training;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

pub(crate) use self::backbone::ModelBackbone;
pub use self::files::{remove_temporary_files, write_atomically};
pub(crate) use self::format::{check_header, values as tensor_values};
use self::format::{check_names_and_shapes, json};
use self::held_out::{LATENT, SCORES, precision_shape, read_calibration, read_latent};
pub use self::history::EpochReport;
pub use self::resume::{CHECKPOINT_FORMAT, Checkpoint, CheckpointInfo};
pub(crate) use self::resume::{OptimizerState, State};
pub use self::training::TrainingInfo;
use self::weights::read_weights;
use crate::architecture::{Architecture, LayerSpec};
use crate::backbone::TENSOR_PREFIX;
use crate::calibrate::{AnomalyStatistics, Calibration, HeldOut, LatentStatistics, Scale, Score};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::whitening::Whitening;

/// The formats that this crate reads: a file is written in the first that holds all of it.
pub const FORMATS: [&str; 2] = ["wae/1", "wae/2"];
/// The largest file that is read unless told otherwise: what the bounds of a configuration allow, with calibration and
/// header.
pub const MAX_BYTES: usize = 3 << 30;

/// A tensor of a model file, in the file's order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorData {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// The tensors of a model file by name.
pub(crate) type Tensors = BTreeMap<String, TensorData>;

/// A model file in memory, checked against its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    config: Config,
    tensors: Tensors,
    history: Vec<EpochReport>,
    latent: Option<LatentStatistics>,
    anomaly: Option<AnomalyStatistics>,
    calibration: Option<Calibration>,
    whitening: Option<Whitening>,
    backbone: ModelBackbone,
    training: Option<TrainingInfo>,
}

impl ModelFile {
    /// A model with its weights, and the whitening of its input if that is features.
    pub(crate) fn new(config: Config, tensors: Tensors, whitening: Option<Whitening>) -> Self {
        Self {
            config,
            tensors,
            history: Vec::new(),
            latent: None,
            anomaly: None,
            calibration: None,
            whitening,
            backbone: ModelBackbone::default(),
            training: None,
        }
    }

    pub(crate) fn with_training(mut self, history: Vec<EpochReport>, training: TrainingInfo) -> Self {
        (self.history, self.training) = (history, Some(training));
        self
    }

    pub(crate) fn with_latent(mut self, latent: LatentStatistics) -> Self {
        self.latent = Some(latent);
        self
    }

    pub(crate) fn with_anomaly(mut self, anomaly: AnomalyStatistics) -> Self {
        self.anomaly = Some(anomaly);
        self
    }

    pub(crate) fn with_calibration(mut self, calibration: Calibration) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// Reads a model from untrusted bytes.
    ///
    /// # Errors
    /// [`Error::Model`] if they are no safetensors file of one of the [`FORMATS`], or hold an unknown tensor;
    /// [`Error::ModelTensor`] for a tensor that is missing or not finite; [`Error::ModelTensorShape`] for one of
    /// another shape than the configuration says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (file, metadata) = format::open(bytes, &FORMATS)?;
        let config: Config = format::required(&metadata, "config")?;
        let needed = format_of(&config);
        if metadata.get("format").is_some_and(|format| format.as_str() < needed) {
            return Err(Error::Model(format!("the configuration takes format '{needed}'")));
        }
        let weights: BTreeMap<String, Vec<usize>> =
            Architecture::new(&config).layers().flat_map(LayerSpec::tensors).map(|(_, n, s)| (n, s)).collect();
        let others = input::shapes(&config).into_iter().chain(anomaly::shapes(&config));
        let has_backbone = config.backbone().is_some_and(|backbone| backbone.embed);
        let is_known = |name: &str, shape: &[usize]| {
            held_out::is_known(name, shape) || (has_backbone && name.starts_with(TENSOR_PREFIX))
        };
        check_names_and_shapes(&file, &weights.clone().into_iter().chain(others).collect(), is_known)?;
        let backbone = ModelBackbone::read(&file, &config)?;
        let tensors = read_weights(&file, weights)?;
        let whitening = input::read_whitening(&file, &config)?;
        let history = json(&metadata, "history")?.unwrap_or_default();
        let latent = read_latent(&file, config.latent_dim())?;
        let anomaly = anomaly::read(&file, &config)?;
        let calibration = read_calibration(&file)?;
        let training = json(&metadata, "training")?;
        Ok(Self { config, tensors, history, latent, anomaly, calibration, whitening, backbone, training })
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, and those of [`Self::from_bytes`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(&files::read(path.as_ref(), MAX_BYTES)?)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Model`] if they cannot be put together.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut metadata =
            BTreeMap::from([("format", format_of(&self.config).to_owned()), ("config", format::text(&self.config)?)]);
        if !self.history.is_empty() {
            metadata.insert("history", format::text(&self.history)?);
        }
        if let Some(training) = &self.training {
            metadata.insert("training", format::text(training)?);
        }
        format::to_bytes(&metadata, &self.all_tensors().collect::<Vec<_>>(), &self.backbone.tensors())
    }

    /// Writes the file so that a crash at any moment leaves what was there before, or all of it.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_atomically(path, &self.to_bytes()?).map_err(|e| Error::io(path, e))
    }

    /// Name, shape and values of every tensor of the file but those of a pretrained network, in its order.
    fn all_tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>, &[f32])> {
        let network = self.tensors.iter().map(|(name, t)| (name.as_str(), t.shape.clone(), t.values.as_slice()));
        let name = |score| SCORES.iter().find(|(s, _)| *s == score).map_or("", |(_, name)| name);
        let scores = self.calibration.iter().flat_map(Calibration::all);
        let scores = scores.map(move |(score, held_out)| (name(score), vec![held_out.len()], held_out.values()));
        let latent = self.latent.iter().flat_map(|latent| {
            let mean = latent.mean();
            let precision = latent.precision();
            [(LATENT[0], vec![mean.len()], mean), (LATENT[1], precision_shape(mean.len()), precision)]
        });
        let anomaly = self.anomaly.iter().flat_map(|statistics| anomaly::tensors(&self.config, statistics));
        let whitening = self.whitening.iter().flat_map(input::tensors);
        network.chain(scores).chain(latent).chain(anomaly).chain(whitening)
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A report for each epoch.
    pub fn history(&self) -> &[EpochReport] {
        &self.history
    }

    /// The held-out rows' scores, if there are any.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The statistics of the training codes, which a file of an older version lacks.
    pub fn latent(&self) -> Option<&LatentStatistics> {
        self.latent.as_ref()
    }

    /// The statistics of the anomaly map, which a file of format `wae/1` lacks.
    pub fn anomaly(&self) -> Option<&AnomalyStatistics> {
        self.anomaly.as_ref()
    }

    /// The scale of reported anomaly scores and maps. `None` of a file of format `wae/1` without held-out rows.
    pub fn anomaly_scale(&self) -> Option<Scale> {
        let held_out = self.calibration.as_ref().and_then(|calibration| calibration.scores(Score::AnomalyScore));
        match self.anomaly {
            Some(_) => Some(Scale::Centred(held_out.map_or(0.0, HeldOut::half))),
            None => held_out.map(|held_out| Scale::Ratio(held_out.half().max(f32::MIN_POSITIVE))),
        }
    }

    /// The whitening of the input, if that is features.
    pub fn whitening(&self) -> Option<&Whitening> {
        self.whitening.as_ref()
    }

    /// The training that made the model, if this crate did it.
    pub fn training(&self) -> Option<&TrainingInfo> {
        self.training.as_ref()
    }

    /// The number of trainable values.
    pub fn parameters(&self) -> usize {
        self.config.parameters()
    }

    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}

/// The first format that holds a model of a configuration.
fn format_of(config: &Config) -> &'static str {
    let [first, second] = FORMATS;
    if config.score_scales().is_empty() && config.input().is_none() { first } else { second }
}

#[cfg(test)]
mod tests;
