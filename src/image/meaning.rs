//! The meaning of the numbers in a column.

/// The meaning of the numbers at the bottom of lists and tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Pixels: floats in [0, 1], or integers that stand for that range.
    Pixels,
    /// Images whose values are only moved and weighted: integers as pixels, and floats that are finite numbers of any
    /// range.
    Numbers,
    /// Features: finite numbers of any range.
    Features,
}

impl Meaning {
    /// A row, as messages name it.
    pub(super) fn row(self) -> &'static str {
        match self {
            Self::Pixels | Self::Numbers => "an image",
            Self::Features => "a row of features",
        }
    }

    /// One of its values.
    pub(super) fn value(self) -> &'static str {
        match self {
            Self::Pixels | Self::Numbers => "pixel",
            Self::Features => "value",
        }
    }
}
