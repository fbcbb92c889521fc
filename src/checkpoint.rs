//! The model file, format `wae/1`: one safetensors file that holds weights, configuration, history and calibration.
//!
//! Tensors have PyTorch's names and layouts, so that a PyTorch module of the same architecture loads them by name. The
//! metadata holds `format` (`wae/1`), `config`, and where there are any `history` and `training`, each as JSON.
//!
//! Files are untrusted. A reader checks the configuration's bounds first, then each tensor's name, type and shape against
//! the configuration, before it allocates anything for them; nothing in a file is ever executed. A writer goes through a
//! temporary file beside the target, synced and then renamed, so that there is always the old model or the new one.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::calibrate::{Calibration, LatentStatistics, Score};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Architecture, LayerSpec, parameters};
use crate::train::EpochReport;

/// The format that this crate reads and writes.
pub const FORMAT: &str = "wae/1";
/// The sorted scores of held-out rows, (n,) each; the costs are there if any are.
const SCORES: [(Score, &str); 3] = [
    (Score::Cost, "calibration.costs"),
    (Score::LatentDistance, "calibration.latent_distances"),
    (Score::AnomalyScore, "calibration.anomaly_scores"),
];
/// Mean and precision of the training codes, (Z,) and (Z, Z), or (Z,) for wide codes.
const LATENT: [&str; 2] = ["calibration.latent_mean", "calibration.latent_precision"];
/// The largest file that is read unless told otherwise: what the bounds of a configuration allow, with calibration and
/// header.
pub const MAX_BYTES: usize = 3 << 30;

/// The largest header that is read, parsed once it is known to fit: the tensors' names, and the metadata.
const MAX_HEADER_BYTES: usize = 64 << 20;
/// The longest text of each key of the metadata. A history has at most 100,000 epochs, of about 350 bytes each.
const MAX_TEXT: [(&str, usize); 3] = [("config", 1 << 16), ("training", 1 << 20), ("history", 48 << 20)];

/// A tensor of a model file, in the file's order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorData {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// The tensors of a model file by name.
pub(crate) type Tensors = BTreeMap<String, TensorData>;

/// How a model came to be.
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
    /// When it ended: RFC 3339, UTC.
    pub created: String,
    /// The version of `wae-core` that trained it.
    pub version: String,
    /// The value used for each option that the configuration does not hold.
    pub options: serde_json::Value,
}

/// A model file in memory, checked against its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFile {
    config: Config,
    tensors: Tensors,
    history: Vec<EpochReport>,
    latent: Option<LatentStatistics>,
    calibration: Option<Calibration>,
    training: Option<TrainingInfo>,
}

impl ModelFile {
    /// A model that nothing is known of but its weights.
    pub(crate) fn new(config: Config, tensors: Tensors) -> Self {
        Self { config, tensors, history: Vec::new(), latent: None, calibration: None, training: None }
    }

    pub(crate) fn with_training(mut self, history: Vec<EpochReport>, training: TrainingInfo) -> Self {
        (self.history, self.training) = (history, Some(training));
        self
    }

    pub(crate) fn with_latent(mut self, latent: LatentStatistics) -> Self {
        self.latent = Some(latent);
        self
    }

    pub(crate) fn with_calibration(mut self, calibration: Calibration) -> Self {
        self.calibration = Some(calibration);
        self
    }

    /// Reads a model from untrusted bytes.
    ///
    /// # Errors
    /// [`Error::Model`] if they are no safetensors file of format `wae/1`, or if a tensor is missing, unknown, of another
    /// shape than the configuration says, or not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let broken = |e: safetensors::SafeTensorError| Error::Model(format!("not a safetensors file: {e}"));
        check_header(bytes)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
        let file = SafeTensors::deserialize(bytes).map_err(broken)?;
        let nothing = HashMap::new();
        let metadata = header.metadata().as_ref().unwrap_or(&nothing);
        match metadata.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) => return Err(Error::Model(format!("format is '{other}', expected '{FORMAT}'"))),
            None => return Err(Error::Model(format!("the metadata names no format, expected '{FORMAT}'"))),
        }
        let config: Config =
            json(metadata, "config")?.ok_or_else(|| Error::Model("the metadata has no 'config'".to_owned()))?;
        let expected: BTreeMap<String, Vec<usize>> =
            Architecture::new(&config).layers().flat_map(LayerSpec::tensors).map(|(_, n, s)| (n, s)).collect();
        check_names_and_shapes(&file, &expected)?;
        let mut tensors = Tensors::new();
        for (name, shape) in expected {
            let values = values(&name, &file.tensor(&name).map_err(broken)?)?;
            if name.ends_with("running_var") && values.iter().any(|v| *v < 0.0) {
                return Err(Error::Model(format!("tensor '{name}' has a negative variance")));
            }
            tensors.insert(name, TensorData { shape, values });
        }
        let history = json(metadata, "history")?.unwrap_or_default();
        let (latent, calibration) = (read_latent(&file, config.latent_dim())?, read_calibration(&file)?);
        Ok(Self { config, tensors, history, latent, calibration, training: json(metadata, "training")? })
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, and those of [`Self::from_bytes`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if bytes > MAX_BYTES as u64 {
            return Err(Error::Model(format!("{} has {bytes} bytes, expected at most {MAX_BYTES}", path.display())));
        }
        Self::from_bytes(&std::fs::read(path).map_err(|e| Error::io(path, e))?)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// [`Error::Model`] if they cannot be put together.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let failed = |e: &dyn std::fmt::Display| Error::Model(format!("cannot write the model: {e}"));
        let text = |value: serde_json::Result<String>| value.map_err(|e| failed(&e));
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("config".to_owned(), text(serde_json::to_string(&self.config))?),
        ]);
        if !self.history.is_empty() {
            metadata.insert("history".to_owned(), text(serde_json::to_string(&self.history))?);
        }
        if let Some(training) = &self.training {
            metadata.insert("training".to_owned(), text(serde_json::to_string(training))?);
        }
        let tensors: Vec<_> = self.all_tensors().collect();
        // Written here and not by the crate, which orders the metadata at random: a model's bytes are its identity.
        let mut header = BTreeMap::from([("__metadata__", serde_json::json!(metadata))]);
        let mut end = 0;
        for (name, shape, values) in &tensors {
            let start = end;
            end += size_of_val(*values);
            header.insert(name, serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        }
        let mut header = text(serde_json::to_string(&header))?.into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + end);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        bytes.extend(tensors.iter().flat_map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes())));
        Ok(bytes)
    }

    /// Writes the file so that a crash at any moment leaves what was there before, or all of it.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_atomically(path, &self.to_bytes()?).map_err(|e| Error::io(path, e))
    }

    /// Name, shape and values of every tensor of the file, in its order.
    fn all_tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>, &[f32])> {
        let network = self.tensors.iter().map(|(name, t)| (name.as_str(), t.shape.clone(), t.values.as_slice()));
        let name = |score| SCORES.iter().find(|(s, _)| *s == score).map_or("", |(_, name)| name);
        let scores = self.calibration.iter().flat_map(Calibration::all);
        let scores = scores.map(move |(score, held_out)| (name(score), vec![held_out.len()], held_out.values()));
        let latent = self.latent.iter().flat_map(|latent| {
            let (mean, precision) = (latent.mean(), latent.precision());
            [(LATENT[0], vec![mean.len()], mean), (LATENT[1], precision_shape(mean.len()), precision)]
        });
        network.chain(scores).chain(latent)
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A report an epoch.
    pub fn history(&self) -> &[EpochReport] {
        &self.history
    }

    /// The held-out rows' scores, if there are any.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// Where the training codes lie; a file of an older version does not say.
    pub fn latent(&self) -> Option<&LatentStatistics> {
        self.latent.as_ref()
    }

    /// How the model came to be, if this crate trained it.
    pub fn training(&self) -> Option<&TrainingInfo> {
        self.training.as_ref()
    }

    /// The number of trainable values.
    pub fn parameters(&self) -> usize {
        parameters(&self.config)
    }

    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }
}

/// Writes a file so that a crash at any moment leaves what was there before, or all of it.
///
/// # Errors
/// Those of writing a temporary file beside it and renaming that.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut builder = tempfile::Builder::new();
    let mut file = shared(builder.prefix(".wae-").suffix(".tmp")).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// Refuses a header that is too long, before it is parsed.
fn check_header(bytes: &[u8]) -> Result<()> {
    let declared = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if declared > MAX_HEADER_BYTES as u64 {
        return Err(Error::Model(format!("the header declares {declared} bytes, expected at most {MAX_HEADER_BYTES}")));
    }
    Ok(())
}

/// A value of the metadata, if it is there.
fn json<T: serde::de::DeserializeOwned>(metadata: &HashMap<String, String>, key: &str) -> Result<Option<T>> {
    let most = MAX_TEXT.iter().find(|(known, _)| *known == key).map_or(0, |(_, most)| *most);
    let parse = |text: &String| match text.len() {
        bytes if bytes > most => Err(Error::Model(format!("'{key}' has {bytes} bytes, expected at most {most}"))),
        _ => serde_json::from_str(text).map_err(|e| Error::Model(format!("'{key}' is unreadable: {e}"))),
    };
    metadata.get(key).map(parse).transpose()
}

/// (Z, Z), or (Z,) for codes whose precision is diagonal.
fn precision_shape(dim: usize) -> Vec<usize> {
    if LatentStatistics::precision_len(dim) == dim { vec![dim] } else { vec![dim, dim] }
}

fn read_latent(file: &SafeTensors<'_>, dim: usize) -> Result<Option<LatentStatistics>> {
    let [mean, precision] = LATENT.map(|name| file.tensor(name).map(|view| (name, view)));
    let (mean, precision) = match (mean, precision) {
        (Ok(mean), Ok(precision)) => (mean, precision),
        (Err(_), Err(_)) => return Ok(None),
        _ => return Err(Error::Model(format!("expected both of {} or neither", LATENT.join(" and ")))),
    };
    for ((name, view), expected) in [(&mean, vec![dim]), (&precision, precision_shape(dim))] {
        if view.shape() != expected {
            return Err(Error::Model(format!("tensor '{name}' has shape {:?}, expected {expected:?}", view.shape())));
        }
    }
    LatentStatistics::try_new(values(mean.0, &mean.1)?, values(precision.0, &precision.1)?).map(Some)
}

fn read_calibration(file: &SafeTensors<'_>) -> Result<Option<Calibration>> {
    let mut calibration: Option<Calibration> = None;
    let unfit = |e: Error| Error::Model(e.to_string());
    for (score, name) in SCORES {
        let Ok(view) = file.tensor(name) else { continue };
        let scores = values(name, &view)?;
        calibration = Some(match (calibration, score) {
            (None, Score::Cost) => Calibration::try_new(scores).map_err(unfit)?,
            (None, _) => return Err(Error::Model(format!("tensor '{name}' without '{}'", SCORES[0].1))),
            (Some(calibration), _) => calibration.with_scores(score, scores).map_err(unfit)?,
        });
    }
    Ok(calibration)
}

fn check_names_and_shapes(file: &SafeTensors<'_>, expected: &BTreeMap<String, Vec<usize>>) -> Result<()> {
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name); // so that of several faults the same one is named each time
    for (name, view) in tensors {
        if !matches!(view.dtype(), Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            return Err(Error::Model(format!("tensor '{name}' is {:?}, expected F32, BF16 or F16", view.dtype())));
        }
        match expected.get(name) {
            Some(shape) if shape == view.shape() => {}
            Some(shape) => {
                return Err(Error::Model(format!("tensor '{name}' has shape {:?}, expected {shape:?}", view.shape())));
            }
            None if SCORES.iter().any(|(_, known)| *known == name) && view.shape().len() == 1 => {}
            None if LATENT.contains(&name) => {}
            None => return Err(Error::Model(format!("unknown tensor '{name}' of shape {:?}", view.shape()))),
        }
    }
    match expected.keys().find(|name| file.tensor(name).is_err()) {
        Some(name) => Err(Error::Model(format!("tensor '{name}' is missing"))),
        None => Ok(()),
    }
}

/// The values of a tensor whose type has been checked.
fn values(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let data = view.data();
    let half = |convert: fn([u8; 2]) -> f32| data.as_chunks::<2>().0.iter().map(|b| convert(*b)).collect();
    let values: Vec<f32> = match view.dtype() {
        Dtype::BF16 => half(|b| half::bf16::from_le_bytes(b).to_f32()),
        Dtype::F16 => half(|b| half::f16::from_le_bytes(b).to_f32()),
        _ => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    match values.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(Error::Model(format!("tensor '{name}' has the value {v}, expected finite numbers"))),
        None => Ok(values),
    }
}

/// Temporary files are private; a model is as readable as any file that the user makes, which the umask says.
#[cfg(unix)]
fn shared<'a, 'p, 's>(builder: &'a mut tempfile::Builder<'p, 's>) -> &'a mut tempfile::Builder<'p, 's> {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn shared<'a, 'p, 's>(builder: &'a mut tempfile::Builder<'p, 's>) -> &'a mut tempfile::Builder<'p, 's> {
    builder
}

/// A rename is durable once its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
