//! A pretrained network as a model sees through it: its layers, and the size that images are brought to.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Backbone, FeatureShape, LayerSelection};
use crate::config::{BackboneConfig, Config};
use crate::error::{Error, Result};
use crate::image::{Image, ImageColumn, Limits, Preprocess, resample};
use crate::shape::ImageShape;

/// Channels of images: red, green and blue.
const CHANNELS: usize = 3;

/// Layers of a pretrained network, computed of whole images, each resized to one size, cropped before where that is
/// asked for.
///
/// # Example
/// ```no_run
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use wae_core::Device;
/// use wae_core::backbone::{Backbone, FeatureExtractor};
/// use wae_core::image::{Limits, decode};
///
/// let backbone = Arc::new(Backbone::open(Path::new("weights/dinov2-small"), Device::Cpu)?);
/// let extractor = FeatureExtractor::try_new(backbone, None, None)?;
/// let image = decode(&std::fs::read("screw.jpg").unwrap(), Some(3), &Limits::default())?;
/// assert_eq!(extractor.features(vec![image])?.len(), extractor.shape().len());
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FeatureExtractor {
    backbone: Arc<Backbone>,
    layers: LayerSelection,
    crop: Option<Preprocess>,
    size: (usize, usize),
    shape: FeatureShape,
}

impl FeatureExtractor {
    /// Layers by their names, those of the family where none are given ([`Backbone::layer_selection`]), of images that
    /// are cropped and resized as `preprocess` says; without it, whole images are resized to the input size that the
    /// files say.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such layer, if no size is given and the files name none, or if the network
    /// takes no images of it.
    pub fn try_new(backbone: Arc<Backbone>, layer: Option<&str>, preprocess: Option<&Preprocess>) -> Result<Self> {
        let layers = backbone.layer_selection(layer)?;
        let asked = preprocess.and_then(|preprocess| preprocess.size().or(preprocess.crop()));
        let size = asked.or_else(|| backbone.preprocessing().input_size()).ok_or_else(|| {
            Error::Config(format!(
                "weights '{}' come without the size of images, expected the option size",
                backbone.name()
            ))
        })?;
        Self::of_size(backbone, layers, preprocess.and_then(Preprocess::crop), size)
    }

    fn of_size(
        backbone: Arc<Backbone>,
        layers: LayerSelection,
        crop: Option<(usize, usize)>,
        size: (usize, usize),
    ) -> Result<Self> {
        let shape = backbone.shape_of(&layers, size)?;
        let crop = crop.map(|crop| Preprocess::try_new(Some(crop), None)).transpose()?;
        Ok(Self { backbone, layers, crop, size, shape })
    }

    /// The network of a model's configuration, with the model's layers and size.
    ///
    /// # Errors
    /// [`Error::Model`] if it is another network, or one that gives other features than the configuration says.
    pub(crate) fn of_config(backbone: Arc<Backbone>, config: &Config) -> Result<Self> {
        let Some(said) = config.backbone() else {
            return Err(Error::Model("the model is not of features of a pretrained network".to_owned()));
        };
        if said.sha256 != backbone.sha256() {
            return Err(Error::Model(format!(
                "the model is of the pretrained network '{}' of sha256 {}, got weights of sha256 {}",
                said.name,
                said.sha256,
                backbone.sha256()
            )));
        }
        let of_model = |e: Error| match e {
            Error::Config(text) => Error::Model(format!("the pretrained network of the model: {text}")),
            e => e,
        };
        let layers = backbone.layer_selection(Some(&said.layer)).map_err(of_model)?;
        let this = Self::of_size(backbone, layers, said.crop, said.size).map_err(of_model)?;
        if this.shape() != config.source() {
            return Err(Error::Model(format!(
                "the pretrained network of the model gives features of shape {}, expected {} as the configuration says",
                this.shape(),
                config.source()
            )));
        }
        let network = &this.backbone;
        if network.architecture() != said.architecture || network.preprocessing().without_size() != said.preprocessing {
            return Err(Error::Model(format!(
                "the pretrained network of the model is {:?} with {}, expected {:?} with {} as the configuration says",
                network.architecture(),
                network.preprocessing().without_size(),
                said.architecture,
                said.preprocessing
            )));
        }
        Ok(this)
    }

    /// The network.
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }

    /// The layers, as [`Backbone::layer_selection`] reads them.
    pub fn layer(&self) -> &str {
        self.layers.name()
    }

    /// The (height, width) of images as the network sees them.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Height and width of the centre crop before the resize.
    pub fn crop(&self) -> Option<(usize, usize)> {
        self.crop.as_ref().and_then(Preprocess::crop)
    }

    /// The shape of the features, (h, w, C); a vector is one place.
    pub fn shape(&self) -> ImageShape {
        self.shape.as_map()
    }

    /// As a model's configuration has it, under a name.
    pub(crate) fn config(&self, name: &str, embed: bool) -> BackboneConfig {
        BackboneConfig {
            name: name.to_owned(),
            architecture: self.backbone.architecture(),
            layer: self.layers.name().to_owned(),
            size: self.size,
            crop: self.crop(),
            preprocessing: self.backbone.preprocessing().without_size(),
            sha256: self.backbone.sha256().to_owned(),
            embed,
        }
    }

    /// An image as the network sees it: cropped where that is asked for, and resized.
    ///
    /// # Errors
    /// [`Error::Data`] if it is too small for the crop.
    pub fn resized(&self, image: Image) -> Result<Image> {
        let cropped = match &self.crop {
            Some(crop) => crop.apply(image)?,
            None => image,
        };
        let (height, width) = self.size;
        resample(&cropped, height, width, self.backbone.preprocessing().filter())
    }

    /// The image of a row of a column, as [`Self::features_of_resized`] takes it.
    ///
    /// # Errors
    /// Those of [`ImageColumn::image`] and [`Self::resized`]; [`Error::Data`] if it is not red, green and blue. The error
    /// does not name the row.
    pub fn image(&self, column: &ImageColumn, row: usize, limits: &Limits) -> Result<Image> {
        let image = column.image(row, Some(CHANNELS), limits)?;
        if image.shape().channels() != CHANNELS {
            let got = image.shape().channels();
            return Err(Error::Data(format!("the image has {got} channels, expected red, green and blue")));
        }
        self.resized(image)
    }

    /// Features of images, in their order.
    ///
    /// # Shapes
    /// N images of any size and three channels → (N, h, w, C).
    ///
    /// # Errors
    /// [`Error::Row`] with the index of an image that is too small for the crop, and those of
    /// [`Self::features_of_resized`].
    pub fn features(&self, images: Vec<Image>) -> Result<Vec<f32>> {
        let resize = |(i, image): (usize, Image)| self.resized(image).map_err(|e| e.in_row(i));
        let images = images.into_par_iter().enumerate().map(resize).collect::<Result<Vec<_>>>()?;
        self.features_of_resized(&images)
    }

    /// As [`Self::features`], of images that are cropped and resized already.
    ///
    /// # Errors
    /// [`Error::Row`] with the index of an image that is not red, green and blue, or whose features are not finite; and
    /// the device's.
    pub fn features_of_resized(&self, images: &[Image]) -> Result<Vec<f32>> {
        let features = self.backbone.features(images, &self.layers, Some(self.size))?;
        let mut values = Vec::with_capacity(images.len() * self.shape.len());
        for (i, features) in features.into_iter().enumerate() {
            if let Some(value) = features.values().iter().find(|value| !value.is_finite()) {
                let problem = format!("the pretrained network gives the value {value}, expected finite numbers");
                return Err(Error::Data(problem).in_row(i));
            }
            values.extend(features.into_values());
        }
        Ok(values)
    }

    /// Whether a tensor of the weights has a part in the layers.
    pub(crate) fn uses(&self, tensor: &str) -> bool {
        self.backbone.network.uses(tensor, self.layers.layers().iter().copied().max().unwrap_or(0))
    }

    /// A tensor of the weights that has no part in the layers, if there is one.
    pub(crate) fn unused_tensor(&self) -> Option<&str> {
        self.backbone.tensors.keys().map(String::as_str).find(|tensor| !self.uses(tensor))
    }

    /// Bytes that the weights take in a model file, up to the last layer.
    pub fn file_bytes(&self) -> usize {
        self.backbone.tensors.iter().filter(|(tensor, _)| self.uses(tensor)).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes at work on `images` images, with their features.
    pub fn working_memory(&self, images: usize) -> usize {
        self.backbone.working_memory(&self.layers, self.size, images).unwrap_or(usize::MAX)
    }
}
