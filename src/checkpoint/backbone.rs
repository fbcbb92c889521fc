//! The pretrained network of a model: its tensors in the file, unless the model names their SHA-256 alone.

use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors};

use super::ModelFile;
use crate::backbone::{Backbone, FeatureExtractor, PretrainedWeights, TENSOR_PREFIX};
use crate::config::Config;
use crate::device::Device;
use crate::error::{Error, Result};

/// The pretrained network of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelBackbone {
    /// The tensors of the file; `None` if it holds none.
    part: Option<Arc<PretrainedWeights>>,
    /// The network: of the tensors on the processor, or as it was given beside a file without them.
    extractor: Option<FeatureExtractor>,
}

/// The network follows from the configuration and the tensors.
impl PartialEq for ModelBackbone {
    fn eq(&self, other: &Self) -> bool {
        self.part == other.part
    }
}

/// A tensor of a file: its name, type, shape and bytes.
type Raw<'a> = (String, Dtype, &'a [usize], &'a [u8]);

impl ModelBackbone {
    /// The network of a training, with the tensors that the model holds.
    pub(crate) fn new(extractor: Option<FeatureExtractor>, part: Option<Arc<PretrainedWeights>>) -> Self {
        Self { part, extractor }
    }

    /// The tensors of a file, which must be those of the network that its configuration says.
    pub(super) fn read(file: &SafeTensors<'_>, config: &Config) -> Result<Self> {
        let Some(said) = config.backbone().filter(|backbone| backbone.embed) else { return Ok(Self::default()) };
        let views = file.iter().filter_map(|(name, view)| Some((name.strip_prefix(TENSOR_PREFIX)?, view)));
        let views: Vec<_> = views.collect();
        let tensors = views.iter().map(|(name, view)| (*name, view.dtype(), view.shape(), view.data()));
        let part = PretrainedWeights::of_tensors("backbone", &said.sha256, tensors);
        let network = Backbone::of_part(&part, said.architecture, said.preprocessing.clone(), Device::Cpu)?;
        let extractor = FeatureExtractor::of_config(Arc::new(network), config)?;
        if let Some(tensor) = extractor.unused_tensor() {
            return Err(Error::Model(format!(
                "tensor '{TENSOR_PREFIX}{tensor}' has no part in layer '{}' of the pretrained network",
                said.layer
            )));
        }
        Ok(Self { part: Some(Arc::new(part)), extractor: Some(extractor) })
    }

    /// The tensors under their names in a file, those of the widest type first, which keeps all of them aligned.
    pub(super) fn tensors(&self) -> Vec<Raw<'_>> {
        let tensors = self.part.iter().flat_map(|part| part.tensors());
        let mut tensors: Vec<Raw<'_>> =
            tensors.map(|(name, dtype, shape, data)| (format!("{TENSOR_PREFIX}{name}"), dtype, shape, data)).collect();
        tensors.sort_by_key(|(_, dtype, ..)| *dtype != Dtype::F32);
        tensors
    }

    /// With the network that a file without tensors names.
    fn with_network(self, network: Arc<Backbone>, config: &Config) -> Result<Self> {
        let extractor = FeatureExtractor::of_config(network, config)?;
        Ok(Self { extractor: Some(extractor), ..self })
    }

    /// The network on a device; `None` if the file names one that was not given.
    pub(crate) fn extractor(&self, config: &Config, device: Device) -> Result<Option<FeatureExtractor>> {
        let is_there = self.extractor.as_ref().is_some_and(|extractor| extractor.backbone().is_on(device));
        match (&self.part, config.backbone()) {
            (Some(part), Some(said)) if !is_there => {
                let network = Backbone::of_part(part, said.architecture, said.preprocessing.clone(), device)?;
                FeatureExtractor::of_config(Arc::new(network), config).map(Some)
            }
            _ => Ok(self.extractor.clone()),
        }
    }
}

impl ModelFile {
    /// A model whose input is what a pretrained network sees.
    pub(crate) fn with_model_backbone(self, backbone: ModelBackbone) -> Self {
        Self { backbone, ..self }
    }

    /// A model with the pretrained network that it names, where the file does not hold it (`embed => false`).
    ///
    /// # Errors
    /// [`Error::Model`] if the network is another one, or if the model names none.
    pub fn with_backbone(self, network: Arc<Backbone>) -> Result<Self> {
        let backbone = self.backbone.with_network(network, &self.config)?;
        Ok(Self { backbone, ..self })
    }

    /// The pretrained network, as the file holds it or as it was given beside it.
    pub(crate) fn backbone(&self) -> &ModelBackbone {
        &self.backbone
    }
}
