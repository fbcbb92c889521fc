//! The pretrained network of a model that sees images through one.

use serde::{Deserialize, Serialize};

use super::{Parts, bounds, within};
use crate::backbone::{BackboneArchitecture, Preprocessing};
use crate::error::{Error, Result};
use crate::image::{Image, Preprocess, resample};

/// The longest text of a name or a layer.
const TEXT: usize = 4096;

/// The pretrained network of a model: images are resized to `size`, cropped before where `crop` is there, and the
/// network's features of them are whitened.
///
/// As JSON,
///
/// ```json
/// {"name": "dinov2-small", "architecture": {"family": "vit", "heads": 6, "epsilon": 1e-6, "names": "timm"},
///  "layer": "tokens", "size": [224, 224],
///  "preprocessing": {"filter": "bicubic", "mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.5, 0.5]},
///  "sha256": "...", "embed": true}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneConfig {
    /// The name that its weights were found by.
    pub name: String,
    /// The family, and what no tensor shows.
    pub architecture: BackboneArchitecture,
    /// The layers, joined by `+`.
    pub layer: String,
    /// Height and width of images as the network sees them.
    pub size: (usize, usize),
    /// Height and width of the centre crop before the resize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<(usize, usize)>,
    /// The filter of the resize, and mean and deviation of the colours.
    pub preprocessing: Preprocessing,
    /// The SHA-256 of the weights' files, as [`crate::backbone::PretrainedWeights::sha256`] has it.
    pub sha256: String,
    /// Whether the model file holds the weights, and not their SHA-256 alone.
    pub embed: bool,
}

impl BackboneConfig {
    /// An image as the network sees it: cropped and resized.
    ///
    /// # Errors
    /// [`Error::Data`] if it is too small for the crop.
    pub fn resized(&self, image: Image) -> Result<Image> {
        let (height, width) = self.size;
        let cropped = match self.crop {
            Some(crop) => Preprocess::try_new(Some(crop), None)?.apply(image)?,
            None => image,
        };
        resample(&cropped, height, width, self.preprocessing.filter())
    }

    /// Checks the network by itself and with the configuration that it is a part of.
    pub(super) fn validate(&self, parts: &Parts) -> Result<()> {
        let refused = |problem: String| Err(Error::Config(format!("a backbone {problem}")));
        for (what, text) in [("name", &self.name), ("layer", &self.layer)] {
            if text.is_empty() || text.len() > TEXT {
                return refused(format!("has a {what} of {} bytes, expected 1 to {TEXT}", text.len()));
            }
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return refused("has a sha256 that is not 64 hexadecimal digits".to_owned());
        }
        let crop = self.crop.map(|crop| ("crop", crop));
        for (what, (height, width)) in [("size", self.size)].into_iter().chain(crop) {
            within(&format!("the height of {what}"), height, bounds::SIDE)?;
            within(&format!("the width of {what}"), width, bounds::SIDE)?;
        }
        if parts.input.is_none() {
            return refused("goes with input 'features' only".to_owned());
        }
        if parts.image.height() > self.size.0 || parts.image.width() > self.size.1 {
            let (height, width) = self.size;
            return refused(format!("gives maps of shape {} of images of {height} × {width}", parts.image));
        }
        self.preprocessing.validate()?;
        self.architecture.validate()
    }
}
