//! The part of a checkpoint that a model file holds: the tensors up to the layer used, as the checkpoint has them.

use std::collections::BTreeMap;

use safetensors::tensor::Dtype;

use super::{PretrainedWeights, Stored};
use crate::backbone::config::NetworkConfig;
use crate::backbone::names::Naming;

/// A tensor by timm's name: its type, shape and bytes.
pub(crate) type PartTensor<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);

impl PretrainedWeights {
    /// The tensors that are used, by timm's names.
    pub(crate) fn part(&self, is_used: impl Fn(&str) -> bool) -> Self {
        let used = self.tensors().filter(|(name, ..)| is_used(name));
        Self::of_tensors("backbone", &self.sha256, used)
    }

    /// A part of a checkpoint, whose files have this SHA-256; messages call it `name`.
    pub(crate) fn of_tensors<'a>(name: &str, sha256: &str, tensors: impl Iterator<Item = PartTensor<'a>>) -> Self {
        let mut bytes = Vec::new();
        let mut stored = BTreeMap::new();
        for (name, dtype, shape, data) in tensors {
            let start = bytes.len();
            bytes.extend_from_slice(data);
            let place = Stored { shard: 0, start, end: bytes.len(), dtype, shape: shape.to_vec() };
            stored.insert(name.to_owned(), place);
        }
        Self {
            name: name.to_owned(),
            shards: vec![bytes],
            tensors: stored,
            naming: Naming::Timm,
            config: NetworkConfig::new(serde_json::Value::Null),
            preprocessor: None,
            sha256: sha256.to_owned(),
            is_part: true,
        }
    }

    /// All tensors, by their names.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = PartTensor<'_>> {
        self.tensors.iter().map(|(name, stored)| {
            let Stored { shard, start, end, dtype, shape } = stored;
            (name.as_str(), *dtype, shape.as_slice(), &self.shards[*shard][*start..*end])
        })
    }

    /// Bytes of the files.
    pub(crate) fn bytes(&self) -> usize {
        self.shards.iter().map(Vec::len).sum()
    }
}

/// Equal tensors, of checkpoints with the same SHA-256.
impl PartialEq for PretrainedWeights {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256 && self.tensors().eq(other.tensors())
    }
}
