//! Images as a network was trained to see them: size, crop, mean and deviation.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::weights::PretrainedWeights;
use crate::error::{Error, Result};
use crate::image::{Filter, Image, MAX_SIDE, Pixels, crop_rows, resample};
use crate::shape::ImageShape;

mod files;

/// ImageNet's mean of red, green and blue, in [0, 1], and their deviation.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// The preparation of images for a network: a resize, a crop, and `(v − mean)/deviation` of each channel.
///
/// Values are in [0, 1] before they are normalised. It is read from `preprocessor_config.json` (transformers) or
/// `config.json` (timm), and equals those libraries' with Pillow's resize. A model file has it as JSON, without the
/// resize and the crop: `{"filter": "bicubic", "mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.5, 0.5]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// The steps to the files' input size; `None` where no file says it.
    #[serde(skip)]
    geometry: Option<ResizeAndCrop>,
    filter: Filter,
    mean: [f32; 3],
    deviation: [f32; 3],
    #[serde(skip, default = "from_files")]
    is_from_files: bool,
}

/// A model file says how images are prepared.
fn from_files() -> bool {
    true
}

/// Resize and crop to an input size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ResizeAndCrop {
    resize: Option<Resize>,
    crop: Option<Crop>,
}

/// A size to resize to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// The shorter side to this length, the other in proportion.
    Shortest(usize),
    /// To this height and width.
    Exact(usize, usize),
}

/// A crop of the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    height: usize,
    width: usize,
    /// Whether half a pixel before the crop is rounded to even, as torchvision does, and not down.
    rounds_to_even: bool,
}

/// An image as a network sees it: of its size, normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedImage {
    /// Height and width.
    pub(super) size: (usize, usize),
    /// (H, W, 3).
    pub(super) values: Vec<f32>,
}

impl Preprocessing {
    /// The preparation that a checkpoint's files say; ImageNet's mean and deviation, without an input size, where they say
    /// nothing.
    pub(super) fn of(weights: &PretrainedWeights) -> Result<Self> {
        let read = |value: Option<&Value>, read: fn(&Value) -> Result<Self>| value.map(read).transpose();
        let in_files = |e| Error::Model(format!("weights '{}': {e}", weights.name()));
        let of_transformers = read(weights.preprocessor(), files::transformers).map_err(in_files)?;
        if let Some(found) = of_transformers {
            return Ok(found);
        }
        let of_timm = read(weights.config().pretrained(), files::timm).map_err(in_files)?;
        let (mean, deviation) = IMAGENET;
        let unknown = Self { geometry: None, filter: Filter::Bicubic, mean, deviation, is_from_files: false };
        Ok(of_timm.unwrap_or(unknown))
    }

    /// The same for images of a size that is always given, as a model file has it.
    pub(crate) fn without_size(&self) -> Self {
        Self { geometry: None, is_from_files: true, ..self.clone() }
    }

    /// The filter of the resize.
    pub(crate) fn filter(&self) -> Filter {
        self.filter
    }

    /// Checks numbers that come from a model file.
    pub(crate) fn validate(&self) -> Result<()> {
        let is_sound = |value: &f32| value.is_finite();
        if !self.mean.iter().all(is_sound) || !self.deviation.iter().all(|value| is_sound(value) && *value > 0.0) {
            let got = format!("mean {:?} and deviation {:?}", self.mean, self.deviation);
            return Err(Error::Config(format!("a backbone has {got}, expected finite numbers, deviations above 0")));
        }
        Ok(())
    }

    /// Whether the files say how images are prepared. Where they do not, mean and deviation are ImageNet's.
    pub fn is_from_files(&self) -> bool {
        self.is_from_files
    }

    /// The (height, width) of the files' input, `None` if they name none or if it depends on the image.
    pub fn input_size(&self) -> Option<(usize, usize)> {
        let geometry = self.geometry?;
        match (geometry.crop, geometry.resize) {
            (Some(crop), _) => Some((crop.height, crop.width)),
            (None, Some(Resize::Exact(height, width))) => Some((height, width)),
            _ => None,
        }
    }

    /// The same; with a `size` (height, width), all of an image is resized to it, and nothing cropped.
    pub fn resized(&self, size: Option<(usize, usize)>) -> Self {
        let exact = |(height, width)| ResizeAndCrop { resize: Some(Resize::Exact(height, width)), crop: None };
        Self { geometry: size.map(exact).or(self.geometry), ..self.clone() }
    }

    /// Prepares an image as the files say, or with a `size` (height, width) by resizing all of it, without a crop.
    ///
    /// # Errors
    /// [`Error::Config`] if no size is given and the files name none; [`Error::Data`] if the image is not of three
    /// channels, or too small for the crop.
    pub(super) fn apply(&self, image: &Image, size: Option<(usize, usize)>) -> Result<PreparedImage> {
        let channels = image.shape().channels();
        if channels != 3 {
            return Err(Error::Data(format!("the image has {channels} channels, expected red, green and blue")));
        }
        let sized = match size {
            Some((height, width)) => resample(image, height, width, self.filter)?,
            None => self.by_files(image)?,
        };
        let shape = sized.shape();
        Ok(PreparedImage { size: (shape.height(), shape.width()), values: self.normalised(&sized) })
    }

    fn by_files(&self, image: &Image) -> Result<Image> {
        let geometry = self.geometry.ok_or_else(|| {
            let files = "preprocessor_config.json, or a config.json of timm";
            Error::Config(format!("the weights come without {files}, so that 'size' must be given"))
        })?;
        let resized = match geometry.resize {
            Some(resize) => {
                let (height, width) = resize.output(image.shape());
                if height.max(width) > MAX_SIDE {
                    let problem = format!("resized to {height} × {width}, expected sides of at most {MAX_SIDE}");
                    return Err(Error::Data(format!("an image of shape {} is {problem}", image.shape())));
                }
                resample(image, height, width, self.filter)?
            }
            None => image.clone(),
        };
        match geometry.crop {
            Some(crop) => crop.apply(&resized),
            None => Ok(resized),
        }
    }

    fn normalised(&self, image: &Image) -> Vec<f32> {
        let mut values = vec![0.0; image.shape().len()];
        image.write_to(&mut values);
        for pixel in values.as_chunks_mut::<3>().0 {
            for (c, value) in pixel.iter_mut().enumerate() {
                *value = (*value - self.mean[c]) / self.deviation[c];
            }
        }
        values
    }
}

impl fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = self.filter.name();
        match self.geometry.and_then(|geometry| geometry.resize) {
            Some(Resize::Shortest(side)) => write!(f, "shorter side to {side}, {filter}; ")?,
            Some(Resize::Exact(height, width)) => write!(f, "to {height} × {width}, {filter}; ")?,
            None => {}
        }
        if let Some(crop) = self.geometry.and_then(|geometry| geometry.crop) {
            write!(f, "centre {} × {}; ", crop.height, crop.width)?;
        }
        write!(f, "mean {:?}, deviation {:?}", self.mean, self.deviation)
    }
}

impl Resize {
    /// (height, width) for an image.
    fn output(self, image: ImageShape) -> (usize, usize) {
        let height = image.height();
        let width = image.width();
        match self {
            Self::Exact(height, width) => (height, width),
            // ⌊side·long/short⌋ in floating point, as both libraries have it.
            Self::Shortest(side) => {
                let long = (side * height.max(width)) as f64 / height.min(width) as f64;
                if width <= height { (long as usize, side) } else { (side, long as usize) }
            }
        }
    }
}

impl Crop {
    fn apply(self, image: &Image) -> Result<Image> {
        let source = image.shape();
        if self.height > source.height() || self.width > source.width() {
            return Err(Error::Data(format!(
                "the image has {} × {} pixels once resized, too few for the centre of {} × {}",
                source.height(),
                source.width(),
                self.height,
                self.width
            )));
        }
        let before = |left: usize| if self.rounds_to_even && left % 4 == 3 { left / 2 + 1 } else { left / 2 };
        let top = before(source.height() - self.height);
        let left = before(source.width() - self.width);
        let shape = ImageShape::new(self.height, self.width, source.channels());
        let pixels = match image.pixels() {
            Pixels::U8(values) => Pixels::U8(crop_rows(values, source, shape, (top, left))),
            Pixels::F32(values) => Pixels::F32(crop_rows(values, source, shape, (top, left))),
        };
        Image::try_new(shape, pixels)
    }
}

#[cfg(test)]
mod tests;
