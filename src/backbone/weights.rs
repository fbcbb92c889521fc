//! A checkpoint: its tensors under timm's names, and what its files of JSON say.
//!
//! Files are untrusted. Their sizes are bounded before they are read, and each tensor's shape is checked against the
//! bytes that it has before values are allocated. Nothing in a file is executed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::config::NetworkConfig;
use super::family::starts_with_one;
use super::files::{WeightFiles, WeightList};
use super::names::{Naming, timm_name};
use crate::checkpoint::{check_header, tensor_values};
use crate::error::{Error, Result};

mod part;

/// A pretrained network's tensors and configuration, as its files have them.
///
/// It holds the files' bytes: a tensor is converted when a network is built from it.
#[derive(Debug)]
pub struct PretrainedWeights {
    name: String,
    shards: Vec<Vec<u8>>,
    tensors: BTreeMap<String, Stored>,
    naming: Naming,
    config: NetworkConfig,
    preprocessor: Option<Value>,
    sha256: String,
    /// Whether these are the tensors up to some layer, and no more.
    is_part: bool,
}

/// The place of a tensor's values: a range of bytes of a shard.
#[derive(Debug, Clone)]
struct Stored {
    shard: usize,
    start: usize,
    end: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl PretrainedWeights {
    /// Reads a checkpoint from a folder, or from a `.safetensors` file and the files of JSON beside it.
    ///
    /// # Errors
    /// As [`Self::read`], and [`Error::Io`] if the path cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(&WeightFiles::at(path)?)
    }

    /// Reads a checkpoint from its files: `model.safetensors`, or the shards that `model.safetensors.index.json` names,
    /// `config.json` and `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`Error::Model`] if there are no weights in safetensors, if a file is damaged, too large or at odds with the
    /// index, or if two tensors have one name.
    pub fn read(files: &WeightFiles<'_>) -> Result<Self> {
        let list = files.weights()?;
        let mut digests = BTreeMap::new();
        let mut json = |name: &str| -> Result<Option<Value>> {
            let Some((value, bytes)) = files.json(name)? else { return Ok(None) };
            digests.insert(name.to_owned(), hex(&bytes));
            Ok(Some(value))
        };
        let config = NetworkConfig::new(json("config.json")?.unwrap_or_default());
        let preprocessor = json("preprocessor_config.json")?;
        let mut reader = Reader::default();
        for (shard, name) in list.files.iter().enumerate() {
            let bytes = files.read(name)?;
            digests.insert(name.clone(), hex(&bytes));
            reader.add(shard, name, &bytes, &list).map_err(|e| files.problem(e))?;
            reader.shards.push(bytes);
        }
        reader.check_index(&list).map_err(|e| files.problem(e))?;
        let lines: String = digests.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
        Ok(Self {
            name: files.name().to_owned(),
            naming: reader.naming.unwrap_or(Naming::Timm),
            tensors: reader.tensors,
            shards: reader.shards,
            config,
            preprocessor,
            sha256: hex(lines.as_bytes()),
            is_part: false,
        })
    }

    /// The SHA-256 of the files: of the lines that `sha256sum` prints of those that were read, in the order of their
    /// names.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The folder or file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn naming(&self) -> Naming {
        self.naming
    }

    pub(super) fn config(&self) -> &NetworkConfig {
        &self.config
    }

    pub(super) fn preprocessor(&self) -> Option<&Value> {
        self.preprocessor.as_ref()
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether a tensor's name begins so.
    pub(super) fn has_prefix(&self, prefix: &str) -> bool {
        self.tensors.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
    }

    /// How many of `prefix`0., `prefix`1., ... there are.
    pub(super) fn count(&self, prefix: &str) -> usize {
        (0..).take_while(|i| self.has_prefix(&format!("{prefix}{i}."))).count()
    }

    /// Whether these are a part of a network that ends before the tensors whose names begin so.
    pub(super) fn ends_before(&self, prefix: &str) -> bool {
        self.is_part && !self.has_prefix(prefix)
    }

    /// The shape of a tensor.
    pub(super) fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.stored(name)?.shape)
    }

    /// The first names, for messages.
    pub(super) fn first_names(&self) -> Vec<&str> {
        self.tensors.keys().take(5).map(String::as_str).collect()
    }

    /// The tensors, of which a network takes its own.
    pub(super) fn parameters(&self) -> Parameters<'_> {
        Parameters { weights: self, taken: RefCell::default() }
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        self.tensors.get(name).ok_or_else(|| Error::model_tensor(name, format!("is missing in '{}'", self.name)))
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let Stored { shard, start, end, dtype, shape } = self.stored(name)?;
        if !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(Error::model_tensor(name, format!("is {dtype:?}, expected F32, F16 or BF16")));
        }
        let bytes = &self.shards[*shard][*start..*end];
        let view =
            TensorView::new(*dtype, shape.clone(), bytes).map_err(|e| Error::model_tensor(name, e.to_string()))?;
        tensor_values(name, &view)
    }
}

/// The tensors of a checkpoint while a network is built from it: each is taken by its name and shape.
#[derive(Debug)]
pub(super) struct Parameters<'a> {
    weights: &'a PretrainedWeights,
    taken: RefCell<BTreeSet<String>>,
}

impl Parameters<'_> {
    /// All of them.
    pub(super) fn weights(&self) -> &PretrainedWeights {
        self.weights
    }

    /// The values of a tensor, which must have this shape.
    ///
    /// # Errors
    /// [`Error::ModelTensorShape`] if it has another shape; [`Error::ModelTensor`] if it is missing, of another type,
    /// or not finite.
    pub(super) fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let got = self.weights.shape(name)?;
        if got != shape {
            return Err(Error::ModelTensorShape {
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                got: got.to_vec(),
            });
        }
        self.taken.borrow_mut().insert(name.to_owned());
        self.weights.values(name)
    }

    /// As [`Self::take`], or `None` if there is no such tensor.
    pub(super) fn take_if_there(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        self.weights.has(name).then(|| self.take(name, shape)).transpose()
    }

    /// Refuses a checkpoint with a tensor that was not taken, whose name begins with none of `unused`: a network with
    /// more parameters is another one, and would be computed wrong.
    pub(super) fn finish(&self, network: &str, unused: &[&str]) -> Result<()> {
        let taken = self.taken.borrow();
        let unused = if self.weights.is_part { &[] } else { unused };
        let is_left = |name: &&String| !taken.contains(*name) && !starts_with_one(name, unused);
        match self.weights.tensors.keys().find(is_left) {
            None => Ok(()),
            Some(name) => Err(Error::Model(format!(
                "weights '{}': tensor '{name}' is none of {network}; {}",
                self.weights.name,
                super::family::KNOWN
            ))),
        }
    }
}

/// The tensors of the shards that have been read.
#[derive(Default)]
struct Reader {
    shards: Vec<Vec<u8>>,
    tensors: BTreeMap<String, Stored>,
    /// Names in the files.
    names: BTreeSet<String>,
    naming: Option<Naming>,
}

impl Reader {
    /// Adds the tensors of a shard.
    fn add(&mut self, shard: usize, file: &str, bytes: &[u8], list: &WeightList) -> Result<()> {
        check_format(file, bytes)?;
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|e| Error::Model(format!("{file} is damaged, or not a safetensors file: {e}")))?;
        for (name, view) in tensors.iter() {
            if let Some(index) = &list.index
                && index.get(name).is_none_or(|other| other != file)
            {
                return Err(Error::Model(format!("the index does not say that tensor '{name}' is in {file}")));
            }
            self.names.insert(name.to_owned());
            // A counter of training steps.
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            let (timm, naming) = timm_name(name);
            self.naming = self.naming.or(naming);
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            let end = start + view.data().len();
            let stored = Stored { shard, start, end, dtype: view.dtype(), shape: view.shape().to_vec() };
            if self.tensors.insert(timm.clone(), stored).is_some() {
                return Err(Error::Model(format!("{file} has a second tensor '{timm}', as '{name}'")));
            }
        }
        Ok(())
    }

    /// Refuses an index that names tensors which no shard has.
    fn check_index(&self, list: &WeightList) -> Result<()> {
        let missing = list.index.iter().flatten().find(|(name, _)| !self.names.contains(*name));
        match missing {
            Some((name, file)) => Err(Error::Model(format!("{file} has no tensor '{name}', which the index names"))),
            None => Ok(()),
        }
    }
}

/// Tells other formats by their first bytes, whatever the file is called, and refuses a header that is too long.
fn check_format(file: &str, bytes: &[u8]) -> Result<()> {
    // A header begins behind the eight bytes of its length.
    let is_safetensors = bytes.get(8) == Some(&b'{');
    let format = match bytes {
        _ if is_safetensors => None,
        [b'P', b'K', 3, 4, ..] => Some("a zip archive, as torch.save writes"),
        [0x80, 2..=5, ..] => Some("a Python pickle"),
        [8, 1..=20, 0x12, ..] => Some("ONNX"),
        [0x89, b'H', b'D', b'F', ..] => Some("HDF5"),
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', ..] => Some("a pointer of Git LFS, not the file that it stands for"),
        _ => Some("in another format"),
    };
    if let Some(format) = format {
        return Err(Error::Model(format!("{file} is {format}, expected safetensors")));
    }
    check_header(bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
