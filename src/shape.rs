//! The shape of an image.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The shape of an image in memory: height, width, channels.
///
/// Any numbers may stand in it, also what an untrusted file says: whoever allocates checks them first.
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

    /// The same height and width, with another number of channels.
    pub(crate) const fn with_channels(self, channels: usize) -> Self {
        Self { channels, ..self }
    }

    /// Values an image, H·W·C; `usize::MAX` where the product does not fit, which no buffer ever has.
    pub const fn len(self) -> usize {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }

    /// Whether an image of this shape has no values.
    pub const fn is_empty(self) -> bool {
        self.height == 0 || self.width == 0 || self.channels == 0
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}, {}]", self.height, self.width, self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_shapes_do_not_overflow() {
        let shape = ImageShape::new(usize::MAX, 2, 3);
        assert_eq!(shape.len(), usize::MAX);
        assert!(!shape.is_empty());
        assert!(ImageShape::new(usize::MAX, 0, 3).is_empty());
    }
}
