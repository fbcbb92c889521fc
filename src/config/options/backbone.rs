//! The pretrained network of a training, and the part of the options that it decides.

use std::path::Path;
use std::sync::Arc;

use super::{InputChoice, TrainOptions};
use crate::backbone::{Backbone, FeatureExtractor, PretrainedWeights};
use crate::config::BackboneConfig;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::{ImageShape, Preprocess};

/// A pretrained network to train on the features of: its name, and the network itself once it has been read.
///
/// Options that are given by name have the name alone; the plugin reads the network. Two choices are equal if their
/// names are, and their weights where both have been read.
///
/// # Example
/// ```no_run
/// use std::path::Path;
///
/// use wae_core::config::BackboneChoice;
/// use wae_core::{Device, TrainOptions};
///
/// let backbone = BackboneChoice::open(Path::new("weights/dinov2-small"), Device::Cpu)?;
/// let options = TrainOptions { backbone: Some(backbone), ..TrainOptions::default() };
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BackboneChoice {
    name: String,
    network: Option<Arc<Backbone>>,
    weights: Option<Arc<PretrainedWeights>>,
}

impl PartialEq for BackboneChoice {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.sha256().zip(other.sha256()).is_none_or(|(a, b)| a == b)
    }
}

impl BackboneChoice {
    /// A network by its name alone, still to be read.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), network: None, weights: None }
    }

    /// Reads a network from a folder or a `.safetensors` file, which its name is taken from.
    ///
    /// # Errors
    /// Those of [`PretrainedWeights::open`] and [`Backbone::try_new`].
    pub fn open(path: &Path, device: Device) -> Result<Self> {
        let weights = Arc::new(PretrainedWeights::open(path)?);
        let network = Arc::new(Backbone::try_new(&weights, device)?);
        let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
        Self::named(name).with_network(network).with_weights(weights)
    }

    /// The same with the network, which computes the features.
    pub fn with_network(self, network: Arc<Backbone>) -> Self {
        Self { network: Some(network), ..self }
    }

    /// The same with the weights that the network was built from, which a model file holds unless `embed` is false.
    ///
    /// # Errors
    /// [`Error::Model`] if the network was built from others.
    pub fn with_weights(self, weights: Arc<PretrainedWeights>) -> Result<Self> {
        match self.sha256() {
            Some(sha256) if sha256 != weights.sha256() => Err(self.other_weights(&weights)),
            _ => Ok(Self { weights: Some(weights), ..self }),
        }
    }

    fn other_weights(&self, weights: &PretrainedWeights) -> Error {
        let network = self.sha256().unwrap_or_default();
        let sha256 = weights.sha256();
        Error::Model(format!(
            "the network of backbone '{}' has the sha256 {network}, and the weights beside it {sha256}: they were replaced",
            self.name
        ))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SHA-256 of the weights, once the network has been read.
    pub fn sha256(&self) -> Option<&str> {
        self.network.as_ref().map(|network| network.sha256())
    }

    /// Bytes of memory of the network and of its weights.
    pub(crate) fn memory(&self) -> usize {
        let weights = self.weights.as_ref().map_or(0, |weights| weights.bytes());
        self.network.as_ref().map_or(0, |network| network.memory()).saturating_add(weights)
    }
}

impl TrainOptions {
    /// The kind of values that the model sees: features where a pretrained network makes them of images.
    pub fn model_input(&self) -> InputChoice {
        if self.backbone.is_some() { InputChoice::Features } else { self.input }
    }

    /// The kind of values that rows hold: images for a pretrained network.
    pub fn row_input(&self) -> InputChoice {
        if self.backbone.is_some() { InputChoice::Image } else { self.input }
    }

    /// The pretrained network with its layers and the size of images; `None` without the option `backbone`.
    ///
    /// # Errors
    /// [`Error::TrainOption`] if it has not been read; and those of [`FeatureExtractor::try_new`].
    pub fn extractor(&self) -> Result<Option<FeatureExtractor>> {
        let Some(choice) = &self.backbone else { return Ok(None) };
        let Some(network) = &choice.network else {
            let problem =
                format!("is '{}', which has not been read: see BackboneChoice::open and with_network", choice.name);
            return Err(Error::train_option("backbone", problem));
        };
        let layer = self.layer.as_deref();
        let extractor = FeatureExtractor::try_new(Arc::clone(network), layer, self.preprocess.as_ref());
        extractor.map(Some).map_err(|e| match e {
            Error::Config(text) => Error::Config(format!("backbone '{}': {text}", choice.name)),
            e => e,
        })
    }

    /// The part of a configuration.
    pub(super) fn backbone_config(&self) -> Result<Option<BackboneConfig>> {
        let name = self.backbone.as_ref().map_or("", BackboneChoice::name);
        Ok(self.extractor()?.map(|extractor| extractor.config(name, self.embed)))
    }

    /// The tensors that a model file holds: those up to the layers, unless `embed` is false.
    ///
    /// # Errors
    /// [`Error::TrainOption`] if the weights have not been read; and those of [`Self::extractor`].
    pub(crate) fn embedded(&self) -> Result<Option<Arc<PretrainedWeights>>> {
        let Some(extractor) = self.extractor()?.filter(|_| self.embed) else { return Ok(None) };
        let part = |weights: &PretrainedWeights| weights.part(|tensor| extractor.uses(tensor));
        Ok(self.check_embedded()?.map(|weights| Arc::new(part(weights))))
    }

    /// The weights that a model file will hold a part of, before the training that leads to it.
    ///
    /// # Errors
    /// [`Error::TrainOption`] if they have not been read.
    pub(crate) fn check_embedded(&self) -> Result<Option<&PretrainedWeights>> {
        let Some(choice) = self.backbone.as_ref().filter(|_| self.embed) else { return Ok(None) };
        match &choice.weights {
            Some(weights) if choice.sha256().is_some_and(|sha256| sha256 != weights.sha256()) => {
                Err(choice.other_weights(weights))
            }
            Some(weights) => Ok(Some(weights)),
            None => Err(Error::train_option("embed", "is true, expected the weights beside the network")),
        }
    }

    /// The shape of a row before it is whitened, of images of a shape: cropped and resized, or as a pretrained network
    /// sees them.
    ///
    /// # Errors
    /// Those of [`Self::extractor`].
    pub fn source(&self, image: ImageShape) -> Result<ImageShape> {
        let preprocessed = || self.preprocess.as_ref().map_or(image, |preprocess| preprocess.output(image));
        Ok(self.extractor()?.map_or_else(preprocessed, |extractor| extractor.shape()))
    }

    /// The preprocessing of a model that sees images itself; a pretrained network has its own.
    pub(super) fn own_preprocess(&self) -> Option<Preprocess> {
        self.preprocess.clone().filter(|_| self.backbone.is_none())
    }

    /// Refuses options that do not go with a pretrained network, or only with one.
    pub(super) fn check_backbone(&self) -> Result<()> {
        let refuse = |option: &str, problem: &str| Err(Error::train_option(option, problem));
        match &self.backbone {
            None if self.layer.is_some() => refuse("layer", "goes with backbone only: it names a layer of its network"),
            None if !self.embed => refuse("embed", "goes with backbone only: it is for the weights of its network"),
            _ => Ok(()),
        }
    }
}
