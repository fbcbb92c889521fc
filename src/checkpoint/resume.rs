//! The checkpoint: a training between two epochs, from which it goes on as if it had not stopped.
//!
//! The file is of the model file's kind, with the format `wae/1-checkpoint`: it holds the tensors and the configuration
//! of a model, and beside them Adam's moments (`optimizer.m.<tensor>`, `optimizer.v.<tensor>`) and, as `state` in the
//! metadata, λ, the steps taken, the options and what tells the images from others. It is read as strictly as a model.
//! Its format is not a model's, so that nothing takes half a training for a model, under whatever name the file comes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use super::{EpochReport, TensorData, Tensors, files, format, read_weights};
use crate::architecture::{Architecture, LayerSpec};
use crate::config::Config;
use crate::dataset::Fingerprint;
use crate::error::{Error, Result};

/// The format of a checkpoint.
pub const CHECKPOINT_FORMAT: &str = "wae/1-checkpoint";
/// The largest checkpoint that is read: the bounds of a configuration allow 3 GiB of weights and moments.
const MAX_BYTES: usize = 4 << 30;
/// The most steps that a checkpoint may claim: beyond any training, and far from an overflow.
const MAX_STEPS: u64 = 1 << 48;
/// The prefixes of Adam's moments before a tensor's name.
const MOMENTS: [&str; 2] = ["optimizer.m.", "optimizer.v."];

/// The state of a training between two epochs beside its tensors and its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// λ now.
    pub(crate) lambda: f64,
    /// Steps of Adam on encoder and decoder.
    pub(crate) steps: u64,
    /// Steps of Adam on the discriminator.
    pub(crate) adversary_steps: u64,
    /// Seconds of training so far.
    pub(crate) seconds: f64,
    /// The value used for each option that the configuration does not hold.
    pub(crate) options: serde_json::Value,
    /// The fingerprint of the images.
    pub(crate) data: Fingerprint,
    /// The CPU's kernels, or the GPU's kind and the precision: the results of others differ by their rounding.
    pub(crate) kernels: String,
    /// The version of `wae-core`.
    pub(crate) version: String,
}

/// Adam's moments and counts: those of a training that goes on, bit for bit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OptimizerState {
    /// Steps on encoder and decoder.
    pub(crate) steps: u64,
    /// Steps on the discriminator.
    pub(crate) adversary_steps: u64,
    /// The running mean of each trained tensor's gradient, under the tensor's name and in its shape.
    pub(crate) m: Tensors,
    /// The running mean of the gradient's square.
    pub(crate) v: Tensors,
}

/// All that a checkpoint says but its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointInfo {
    pub(crate) config: Config,
    pub(crate) history: Vec<EpochReport>,
    pub(crate) state: State,
}

/// A checkpoint in memory, checked against its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    info: CheckpointInfo,
    tensors: Tensors,
    optimizer: OptimizerState,
}

impl CheckpointInfo {
    /// Reads the head of a checkpoint, without its tensors.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Model`] if it is no checkpoint.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Header {
            #[serde(default, rename = "__metadata__")]
            metadata: HashMap<String, String>,
        }
        let path = path.as_ref();
        let at = |e| Error::io(path, e);
        let mut file = File::open(path).map_err(at)?;
        let mut len = [0; 8];
        file.read_exact(&mut len).map_err(at)?;
        let len = u64::from_le_bytes(len);
        format::check_header(len)?;
        let mut header = Vec::new();
        file.take(len).read_to_end(&mut header).map_err(at)?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|e| Error::Model(format!("not a safetensors file: the header is unreadable: {e}")))?;
        format::check_format(&header.metadata, &[CHECKPOINT_FORMAT])?;
        Self::from_metadata(&header.metadata)
    }

    fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self> {
        let config = format::required(metadata, "config")?;
        let history: Vec<EpochReport> = format::json(metadata, "history")?.unwrap_or_default();
        let state: State = format::required(metadata, "state")?;
        if !history.iter().enumerate().all(|(i, report)| report.epoch == i + 1) {
            return Err(Error::Model("the epochs of 'history' are not 1, 2, 3, ...".to_owned()));
        }
        if state.steps > MAX_STEPS || state.adversary_steps > MAX_STEPS {
            return Err(Error::Model(format!("'state' has more than {MAX_STEPS} steps")));
        }
        if state.lambda < 0.0 || state.seconds < 0.0 {
            return Err(Error::Model("'state' has a negative lambda or time".to_owned()));
        }
        Ok(Self { config, history, state })
    }

    /// The configuration of the model in training.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A report for each epoch that was done.
    pub fn history(&self) -> &[EpochReport] {
        &self.history
    }

    /// The number of epochs that the training was to have.
    pub fn epochs(&self) -> u64 {
        self.state.options.get("epochs").and_then(serde_json::Value::as_u64).unwrap_or_default()
    }
}

impl Checkpoint {
    /// A training as it stands; the counts of `state` are the optimiser's.
    ///
    /// # Errors
    /// [`Error::Training`] for a tensor that is not finite: nothing could go on from it.
    pub(crate) fn try_new(info: CheckpointInfo, tensors: Tensors, optimizer: OptimizerState) -> Result<Self> {
        let mut all = tensors.iter().chain(&optimizer.m).chain(&optimizer.v);
        match all.find(|(_, tensor)| !tensor.values.iter().all(|v| v.is_finite())) {
            Some((name, _)) => Err(Error::Training(format!(
                "no checkpoint of epoch {}: tensor '{name}' or its moments are not finite; try a smaller learning_rate",
                info.history.len()
            ))),
            None => Ok(Self { info, tensors, optimizer }),
        }
    }

    /// Reads a checkpoint from untrusted bytes.
    ///
    /// # Errors
    /// [`Error::Model`] if they are no safetensors file of this format, or hold an unknown tensor;
    /// [`Error::ModelTensor`] for a tensor that is missing, of another type or not finite; [`Error::ModelTensorShape`]
    /// for one of another shape than the configuration says.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (file, metadata) = format::open(bytes, &[CHECKPOINT_FORMAT])?;
        let info = CheckpointInfo::from_metadata(&metadata)?;
        let layers: Vec<_> = Architecture::new(&info.config).layers().flat_map(LayerSpec::tensors).collect();
        let weights: BTreeMap<_, _> = layers.iter().map(|(_, n, s)| (n.clone(), s.clone())).collect();
        let trained: BTreeMap<_, _> =
            layers.into_iter().filter(|(role, ..)| role.is_trained()).map(|(_, n, s)| (n, s)).collect();
        let moments = MOMENTS.map(|prefix| trained.iter().map(move |(n, s)| (format!("{prefix}{n}"), s.clone())));
        let all = weights.clone().into_iter().chain(moments.into_iter().flatten()).collect();
        format::check_names_and_shapes(&file, &all, |_, _| false)?;
        if let Some((name, view)) = file.iter().find(|(_, view)| view.dtype() != Dtype::F32) {
            return Err(Error::model_tensor(name, format!("is {:?}, expected F32 in a checkpoint", view.dtype())));
        }
        let tensors = read_weights(&file, weights)?;
        let [m, v] = MOMENTS.map(|prefix| read_moments(&file, prefix, &trained));
        let m = m?;
        let v = v?;
        if let Some((name, _)) = v.iter().find(|(_, tensor)| tensor.values.iter().any(|v| *v < 0.0)) {
            return Err(Error::model_tensor(format!("{}{name}", MOMENTS[1]), "has a negative mean square"));
        }
        let steps = info.state.steps;
        let adversary_steps = info.state.adversary_steps;
        Ok(Self { info, tensors, optimizer: OptimizerState { steps, adversary_steps, m, v } })
    }

    /// Reads a checkpoint.
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
        let CheckpointInfo { config, history, state } = &self.info;
        let metadata = BTreeMap::from([
            ("format", CHECKPOINT_FORMAT.to_owned()),
            ("config", format::text(config)?),
            ("history", format::text(history)?),
            ("state", format::text(state)?),
        ]);
        let of = |prefix: &'static str, tensors| {
            let tensors: std::collections::btree_map::Iter<'_, String, TensorData> = tensors;
            tensors.map(move |(name, t)| (format!("{prefix}{name}"), t.shape.clone(), t.values.as_slice()))
        };
        let [m, v] = MOMENTS;
        let all =
            of("", self.tensors.iter()).chain(of(m, self.optimizer.m.iter())).chain(of(v, self.optimizer.v.iter()));
        format::to_bytes(&metadata, &all.collect::<Vec<_>>(), &[])
    }

    /// Writes the file, named `.<model>.checkpoint` by the plugin, so that a crash at any moment leaves the checkpoint
    /// that was there before, or all of this one.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        super::write_atomically(path, &self.to_bytes()?).map_err(|e| Error::io(path, e))
    }

    /// All that it says but its tensors.
    pub fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    pub(crate) fn optimizer(&self) -> &OptimizerState {
        &self.optimizer
    }
}

fn read_moments(file: &SafeTensors<'_>, prefix: &str, trained: &BTreeMap<String, Vec<usize>>) -> Result<Tensors> {
    let tensor = |(name, shape): (&String, &Vec<usize>)| {
        let full = format!("{prefix}{name}");
        let values = format::values(&full, &file.tensor(&full).map_err(format::broken)?)?;
        Ok((name.clone(), TensorData { shape: shape.clone(), values }))
    };
    trained.iter().map(tensor).collect()
}

#[cfg(test)]
mod tests;
