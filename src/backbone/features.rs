//! Features of an image: values and their shape.

use std::fmt;

use crate::shape::ImageShape;

/// The shape of a layer's values for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureShape {
    /// A map of places with C values each, (h, w, C).
    Map(ImageShape),
    /// One vector, (C,).
    Vector(usize),
}

impl FeatureShape {
    /// The number of values.
    pub fn len(self) -> usize {
        match self {
            Self::Map(map) => map.len(),
            Self::Vector(channels) => channels,
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The shape as a map: a vector is one place.
    pub fn as_map(self) -> ImageShape {
        match self {
            Self::Map(map) => map,
            Self::Vector(channels) => ImageShape::new(1, 1, channels),
        }
    }
}

impl fmt::Display for FeatureShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(map) => write!(f, "{map}"),
            Self::Vector(channels) => write!(f, "[{channels}]"),
        }
    }
}

/// The features of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    shape: FeatureShape,
    values: Vec<f32>,
}

impl Features {
    pub(super) fn new(shape: FeatureShape, values: Vec<f32>) -> Self {
        Self { shape, values }
    }

    /// The shape.
    pub fn shape(&self) -> FeatureShape {
        self.shape
    }

    /// The values, place by place, each with its channels.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values themselves.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }
}
