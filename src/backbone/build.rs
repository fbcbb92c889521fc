//! Networks from the files of a checkpoint, and from the part of one that a model file holds.

use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::family::{FrozenNetwork, recognise};
use super::{Backbone, BackboneArchitecture, Preprocessing, PretrainedWeights, TENSOR_PREFIX};
use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::ops::Target;
use crate::ops::frozen::agrees_with_kernels;

impl Backbone {
    /// Loads a network from a folder, or from a `.safetensors` file and the files of JSON beside it.
    ///
    /// # Errors
    /// Those of [`PretrainedWeights::open`] and [`Self::try_new`].
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        Self::try_new(&PretrainedWeights::open(path)?, device)
    }

    /// Builds the network of weights that have been read.
    ///
    /// The log warns where no file says how images are prepared: mean and deviation are ImageNet's then.
    ///
    /// # Errors
    /// [`Error::Model`] if it is a network that does not work, or if `config.json` lacks what no tensor shows;
    /// [`Error::ModelTensor`] and [`Error::ModelTensorShape`] if a tensor is not as the network has it;
    /// [`Error::Device`] if the device cannot be opened.
    pub fn try_new(weights: &PretrainedWeights, device: Device) -> Result<Self> {
        Self::of_target(weights, open(device)?)
    }

    pub(super) fn of_target(weights: &PretrainedWeights, target: Target) -> Result<Self> {
        let architecture = recognise(weights)?;
        let network = architecture.build(weights, &target)?;
        let preprocessing = Preprocessing::of(weights)?;
        if !preprocessing.is_from_files() {
            let name = weights.name();
            log::warn!("weights '{name}' come without a file on preprocessing: taking ImageNet's mean and deviation");
        }
        Ok(Self::of_network(weights, network, architecture, preprocessing, target))
    }

    /// Builds the part of a network that a model file holds.
    ///
    /// # Errors
    /// Those of its tensors, under their names in the file.
    pub(crate) fn of_part(
        part: &PretrainedWeights,
        architecture: BackboneArchitecture,
        preprocessing: Preprocessing,
        device: Device,
    ) -> Result<Self> {
        let target = open(device)?;
        let in_file = |tensor: String| format!("{TENSOR_PREFIX}{tensor}");
        let network = architecture.build(part, &target).map_err(|e| match e {
            Error::ModelTensor { tensor, problem } => Error::ModelTensor { tensor: in_file(tensor), problem },
            Error::ModelTensorShape { tensor, expected, got } => {
                Error::ModelTensorShape { tensor: in_file(tensor), expected, got }
            }
            e => e,
        })?;
        Ok(Self::of_network(part, network, architecture, preprocessing, target))
    }

    fn of_network(
        weights: &PretrainedWeights,
        network: Box<dyn FrozenNetwork>,
        architecture: BackboneArchitecture,
        preprocessing: Preprocessing,
        target: Target,
    ) -> Self {
        Self {
            network,
            architecture,
            preprocessing,
            target,
            name: weights.name().to_owned(),
            sha256: weights.sha256().to_owned(),
            tensors: weights.tensors().map(|(name, .., data)| (name.to_owned(), data.len())).collect(),
            computed: AtomicU64::new(0),
        }
    }
}

/// Opens a device, and compares the operations that only pretrained networks have; [`Target::open`] compares the rest.
fn open(device: Device) -> Result<Target> {
    let target = Target::open(device, Precision::F32)?;
    if !target.has_kernels() {
        agrees_with_kernels(&target)?;
    }
    Ok(target)
}
