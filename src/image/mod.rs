//! Images, whatever they came from: encoded bytes, tensors, nested lists.

use std::fmt;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The shape of an image in memory: height, width, channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    height: usize,
    width: usize,
    channels: usize,
}

impl ImageShape {
    /// A shape of `height` × `width` pixels of `channels` values each.
    pub const fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }
    /// Rows of pixels.
    pub const fn height(self) -> usize {
        self.height
    }
    /// Pixels a row.
    pub const fn width(self) -> usize {
        self.width
    }
    /// Values a pixel: 1 grey, 3 RGB.
    pub const fn channels(self) -> usize {
        self.channels
    }
    /// Values an image, H·W·C.
    pub const fn len(self) -> usize {
        self.height * self.width * self.channels
    }
    /// Whether an image of this shape has no values.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}, {}]", self.height, self.width, self.channels)
    }
}

/// The values of an image in (H, W, C) order.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 0..=255, meaning v / 255.
    U8(Vec<u8>),
    /// In [0, 1].
    F32(Vec<f32>),
}

/// A decoded image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    shape: ImageShape,
    pixels: Pixels,
}

impl Image {
    /// fails when the number of values is not that of the shape
    pub fn try_new(shape: ImageShape, pixels: Pixels) -> Result<Self> {
        let _ = (shape, pixels);
        unimplemented!()
    }
    /// (H, W, C).
    pub fn shape(&self) -> ImageShape {
        self.shape
    }
    /// The values.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }
    /// Writes the values in [0, 1]; `out` has exactly shape().len() items. u8 is v as f32 / 255.0.
    pub fn write_to(&self, out: &mut [f32]) {
        let _ = out;
        unimplemented!()
    }
}

/// What an encoded image may ask for before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels (H·W) an image may declare (default 1 << 26).
    pub max_pixels: usize,
    /// Most bytes an encoded image may have (default 64 MiB).
    pub max_image_bytes: usize,
}
impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 1 << 26, max_image_bytes: 64 << 20 }
    }
}

/// Centre crop, then antialiased resize: what is done to an image before the network sees it, stored in the model file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// centre crop (height, width), first
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crop: Option<(usize, usize)>,
    /// resize to (height, width), antialiased (triangle filter), second
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<(usize, usize)>,
}

impl Preprocess {
    /// sides within 1..=4096, at least one of the two given
    pub fn try_new(crop: Option<(usize, usize)>, size: Option<(usize, usize)>) -> Result<Self> {
        Ok(Self { crop, size })
    }
    /// Checks what was read from a file: sides within bounds, output equal to `image`'s height and width.
    pub(crate) fn validate(&self, image: ImageShape) -> Result<()> {
        let _ = image;
        Ok(())
    }
    /// The shape that an image of shape `source` comes out with (crop larger than the source is clamped only in this
    /// function; `apply` refuses it).
    pub fn output(&self, source: ImageShape) -> ImageShape {
        let _ = source;
        unimplemented!()
    }
    /// Crops and resizes.
    pub fn apply(&self, image: Image) -> Result<Image> {
        let _ = image;
        unimplemented!()
    }
}

/// Decodes PNG, JPEG, WebP, BMP, GIF (first frame) or TIFF; applies EXIF orientation.
/// `channels`: 1, 3 or 4 converts; None keeps grey or RGB, alpha composited over white.
pub fn decode(bytes: &[u8], channels: Option<usize>, limits: &Limits) -> Result<Image> {
    let _ = (bytes, channels, limits);
    unimplemented!()
}
/// Encodes as PNG ("png") or JPEG ("jpeg"); 1, 3 or 4 channels.
pub fn encode(image: &Image, format: &str) -> Result<Vec<u8>> {
    let _ = (image, format);
    unimplemented!()
}
/// Resize (antialiased triangle) any image of any channel count to height × width.
pub fn resize(image: &Image, height: usize, width: usize) -> Result<Image> {
    let _ = (image, height, width);
    unimplemented!()
}

/// A column of images: what kind its Arrow type is. Checked at planning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageType {
    /// The shape, if the type fixes it (fixed_shape_tensor with H×W or H×W×C).
    shape: Option<ImageShape>,
}
impl ImageType {
    /// Fails with Error::Type naming what is accepted and what came.
    pub fn try_new(field: &Field) -> Result<Self> {
        let _ = field;
        unimplemented!()
    }
    /// The shape that the type fixes.
    pub fn shape(&self) -> Option<ImageShape> {
        self.shape
    }
    /// At planning: fails if images of this type can never have shape `expected`
    pub fn check_shape(&self, expected: ImageShape) -> Result<()> {
        let _ = expected;
        unimplemented!()
    }
}

/// One column of images of a record batch.
#[derive(Debug)]
pub struct ImageColumn {
    array: ArrayRef,
}
impl ImageColumn {
    /// From a column and its field (whose metadata may hold the tensor's shape). `fallback` is the shape taken for
    /// a plain FixedSizeList/List without metadata.
    pub fn try_new(field: &Field, array: &ArrayRef, fallback: Option<ImageShape>) -> Result<Self> {
        let _ = (field, array, fallback);
        unimplemented!()
    }
    /// Rows.
    pub fn len(&self) -> usize {
        self.array.len()
    }
    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.array.is_empty()
    }
    /// Whether a row holds no image (NULL, or a struct whose bytes are NULL).
    pub fn is_null(&self, row: usize) -> bool {
        let _ = row;
        unimplemented!()
    }
    /// Decodes one row; `channels` as in decode() (applies to encoded bytes only).
    pub fn image(&self, row: usize, channels: Option<usize>, limits: &Limits) -> Result<Image> {
        let _ = (row, channels, limits);
        unimplemented!()
    }
    /// Decodes rows `rows` (those not null, in order) in parallel into one (N, H, W, C) buffer of f32 in [0, 1], each
    /// preprocessed and checked against `shape`. Errors name the row.
    pub fn read(
        &self,
        rows: &[usize],
        shape: ImageShape,
        preprocess: Option<&Preprocess>,
        limits: &Limits,
    ) -> Result<Vec<f32>> {
        let _ = (rows, shape, preprocess, limits);
        unimplemented!()
    }
}

/// The field of a fixed-shape tensor column of `item` (UInt8 or Float32) with H×W×C metadata as pyarrow reads it.
pub fn tensor_field(name: &str, item: arrow::datatypes::DataType, dims: &[(&str, usize)], nullable: bool) -> Field {
    let _ = (name, item, dims, nullable);
    unimplemented!()
}
