//! Pretrained networks: maps of features of images, from weights as people download them.
//!
//! A [`Backbone`] is a frozen network that was trained elsewhere. Its layers give each image a map of features, (h, w,
//! C), or one vector, (C,), which tell an image apart far better than its pixels do.
//!
//! | family | names of tensors | layers |
//! |---|---|---|
//! | ResNet-18 to ResNet-152, wide ResNets | timm, torchvision, transformers | `layer1` to `layer4`, `pooled` |
//! | ViT, DINOv2, with registers or without | timm, transformers | `blocks.0`, `blocks.1`, ..., `tokens`, `cls` |
//! | EfficientNet, EfficientNet-Lite | timm | `blocks.0` to `blocks.6`, `pooled` |
//!
//! Weights are safetensors, in one file or in shards, with `config.json` and `preprocessor_config.json` beside them.
//! Nothing is downloaded, and nothing in a file is executed. A network is recognised by the names and shapes of its
//! tensors. What these do not show comes from `config.json`, and it is an error where that is missing; a network that
//! is not known, or has more tensors than its family, is refused.
//!
//! Features are those of PyTorch to 1e-5 of a layer's largest value, on every device: the CPU's kernels, and candle's
//! operations elsewhere.
//!
//! # Example
//! ```no_run
//! use std::path::Path;
//!
//! use wae_core::Device;
//! use wae_core::backbone::Backbone;
//! use wae_core::image::{Limits, decode};
//!
//! let backbone = Backbone::open(Path::new("weights/dinov2-small"), Device::Cpu)?;
//! let layer = backbone.layer_selection(Some("tokens"))?;
//! let image = decode(&std::fs::read("screw.jpg").unwrap(), None, &Limits::default())?;
//! let features = backbone.features(&[image], &layer, Some((224, 224)))?;
//! assert_eq!(features[0].shape(), backbone.shape_of(&layer, (224, 224))?); // (16, 16, 384)
//! # Ok::<(), wae_core::Error>(())
//! ```

mod architecture;
mod build;
mod config;
mod efficientnet;
mod extractor;
mod family;
mod features;
mod files;
mod layers;
mod names;
mod positions;
mod preprocessing;
mod resnet;
mod selection;
mod vit;
mod weights;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

pub use self::architecture::BackboneArchitecture;
pub use self::extractor::FeatureExtractor;
use self::family::{FrozenNetwork, Kept};
pub use self::features::{FeatureShape, Features};
pub use self::files::WeightFiles;
pub use self::names::Naming;
pub use self::preprocessing::{PreparedImage, Preprocessing};
pub use self::selection::LayerSelection;
pub use self::weights::PretrainedWeights;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::{Image, MAX_SIDE};
use crate::ops::{MOST_VALUES, Target, Tensor, to_vec};

/// The most images of a pass.
const IMAGES: usize = 16;
/// Stands before the names of a network's tensors in a model file.
pub(crate) const TENSOR_PREFIX: &str = "backbone.";
/// The most values that the images of a pass have in memory together, unless one image alone has more: 256 MB.
const ACTIVATION: usize = 1 << 26;

/// A frozen network, ready to compute features.
///
/// It holds its weights packed for the machine it was loaded on, or on a GPU. Share it behind an [`std::sync::Arc`]. On
/// the processor, an image's features are the same bits whatever images stand beside it.
#[derive(Debug)]
pub struct Backbone {
    network: Box<dyn FrozenNetwork>,
    architecture: BackboneArchitecture,
    preprocessing: Preprocessing,
    target: Target,
    name: String,
    sha256: String,
    /// Bytes of each tensor, by timm's name.
    tensors: BTreeMap<String, usize>,
    computed: AtomicU64,
}

impl Backbone {
    /// The folder or file that it was loaded from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its family: ResNet, ViT or EfficientNet.
    pub fn family(&self) -> &'static str {
        self.architecture.family()
    }

    /// The SHA-256 of its files, as [`PretrainedWeights::sha256`] has it.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its family, and what no tensor shows.
    pub fn architecture(&self) -> BackboneArchitecture {
        self.architecture
    }

    /// Whether it computes on a device.
    pub(crate) fn is_on(&self, device: Device) -> bool {
        match self.target.device() {
            candle_core::Device::Cpu => device.resolved() == Device::Cpu,
            candle_core::Device::Cuda(_) => matches!(device.resolved(), Device::Cuda(_)),
            candle_core::Device::Metal(_) => matches!(device.resolved(), Device::Metal(_)),
        }
    }

    /// Images that it has computed since it was loaded.
    pub fn images_computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// The preparation of images, as its files say.
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// The names of its layers, in the order in which they are computed.
    pub fn layers(&self) -> Vec<String> {
        self.network.layers()
    }

    /// Layers by their names: one, or several joined by `+`, such as `layer2+layer3`. Without names, those of the
    /// family that suit anomaly detection.
    ///
    /// Joined maps are resized bilinearly, pixels at the centres of their cells, to the one with the most places; then
    /// their channels stand one behind the other, in the order of the names.
    ///
    /// # Errors
    /// [`Error::Config`] that lists the layers, if there is no such layer; or if one is named twice, or a map with a
    /// vector.
    pub fn layer_selection(&self, names: Option<&str>) -> Result<LayerSelection> {
        LayerSelection::parse(&*self.network, names.unwrap_or(self.network.default_layers()))
    }

    /// The shape of layers for images of a (height, width) in pixels, as the network sees them.
    ///
    /// # Errors
    /// [`Error::Config`] if the network takes no images of that size, or if they would need too much memory.
    pub fn shape_of(&self, layers: &LayerSelection, size: (usize, usize)) -> Result<FeatureShape> {
        for (name, side) in [("height", size.0), ("width", size.1)] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(Error::Config(format!("the {name} must be between 1 and {MAX_SIDE}, got {side}")));
            }
        }
        self.network.check_size(size)?;
        let shape = layers.join_shapes(|layer| self.network.shape_of(layer, size))?;
        let most = self.network.values_at_work(size).max(shape.len());
        if most > MOST_VALUES / 2 {
            let (height, width) = size;
            return Err(Error::Config(format!(
                "images of {height} × {width} need {most} values at one time, expected at most {}",
                MOST_VALUES / 2
            )));
        }
        Ok(shape)
    }

    /// Features of images, in their order.
    ///
    /// With a `size` (height, width) each image is resized to it whole; without one it is resized and cropped as the
    /// files say, as timm and transformers do. Images have three channels, of bytes or of floats in [0, 1]; bytes are
    /// resized as Pillow does it, to the level.
    ///
    /// # Errors
    /// [`Error::Row`] with the index of an image that is not red, green and blue, or too small for the files' crop;
    /// [`Error::Config`] if there is no size, or as [`Self::shape_of`]; and the device's.
    pub fn features(
        &self,
        images: &[Image],
        layers: &LayerSelection,
        size: Option<(usize, usize)>,
    ) -> Result<Vec<Features>> {
        let mut features = Vec::with_capacity(images.len());
        // A few images are prepared at a time: once normalised, they take four times the memory of their bytes.
        for (chunk, images) in images.chunks(IMAGES).enumerate() {
            let prepare = |(i, image): (usize, &Image)| {
                self.prepare(image, size).map_err(|e| match e {
                    e @ Error::Config(_) => e,
                    e => e.in_row(chunk * IMAGES + i),
                })
            };
            let prepared = images.par_iter().enumerate().map(prepare).collect::<Result<Vec<_>>>()?;
            features.extend(self.features_of_prepared(&prepared, layers)?);
        }
        Ok(features)
    }

    /// An image as the network sees it, as [`Self::features`] prepares it.
    ///
    /// # Errors
    /// [`Error::Data`] if it is not red, green and blue, or too small for the files' crop; [`Error::Config`] if there is
    /// no size.
    pub fn prepare(&self, image: &Image, size: Option<(usize, usize)>) -> Result<PreparedImage> {
        self.preprocessing.apply(image, size)
    }

    /// Features of images that have been prepared, in their order. In memory one takes four times the bytes of its
    /// pixels: prepare a few at a time.
    ///
    /// # Errors
    /// As [`Self::shape_of`], and the device's.
    pub fn features_of_prepared(&self, images: &[PreparedImage], layers: &LayerSelection) -> Result<Vec<Features>> {
        let mut features = Vec::with_capacity(images.len());
        // Images that are neither cropped nor resized to one size come in several.
        for alike in images.chunk_by(|a, b| a.size == b.size) {
            features.extend(self.features_of(alike, layers)?);
        }
        Ok(features)
    }

    /// Features of images of one size.
    fn features_of(&self, images: &[PreparedImage], layers: &LayerSelection) -> Result<Vec<Features>> {
        let Some(first) = images.first() else { return Ok(Vec::new()) };
        let shape = self.shape_of(layers, first.size)?;
        let together = (ACTIVATION / self.network.values_at_work(first.size).max(1)).clamp(1, IMAGES);
        let mut features = Vec::with_capacity(images.len());
        for images in images.chunks(together) {
            let values: Vec<f32> = images.iter().flat_map(|image| &image.values).copied().collect();
            let (height, width) = first.size;
            let images = self.target.tensor(values, &[images.len(), height, width, 3])?;
            let values = to_vec(&self.forward(&images, layers, shape)?)?;
            self.computed.fetch_add((values.len() / shape.len()) as u64, Ordering::Relaxed);
            features.extend(values.chunks_exact(shape.len()).map(|values| Features::new(shape, values.to_vec())));
        }
        Ok(features)
    }

    /// Layers of normalised images, (N, H, W, 3): (N, h, w, C) or (N, C).
    fn forward(&self, images: &Tensor, layers: &LayerSelection, shape: FeatureShape) -> Result<Tensor> {
        let mut kept = Kept::new(layers.layers());
        self.network.forward(&self.target, images, &mut kept)?;
        layers.join(&kept, shape)
    }

    /// Bytes of the weights.
    pub fn memory(&self) -> usize {
        self.network.memory()
    }

    /// Bytes at work on `images` images of a (height, width), with their features.
    ///
    /// # Errors
    /// As [`Self::shape_of`].
    pub fn working_memory(&self, layers: &LayerSelection, size: (usize, usize), images: usize) -> Result<usize> {
        let shape = self.shape_of(layers, size)?;
        let values = self.network.values_at_work(size);
        let together = (ACTIVATION / values.max(1)).clamp(1, IMAGES).min(images);
        let input = 3 * size.0 * size.1 * IMAGES.min(images);
        let work = values.saturating_add(2 * shape.len()).saturating_mul(together);
        let output = shape.len().saturating_mul(images);
        Ok(work.saturating_add(input).saturating_add(output).saturating_mul(size_of::<f32>()))
    }
}

#[cfg(test)]
mod tests;
