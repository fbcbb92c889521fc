//! The order of an image's axes, as a caller states it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The order of the axes of a list or tensor whose type does not name them.
///
/// # Example
/// ```
/// use wae_core::image::AxisOrder;
///
/// assert_eq!("CHW".parse::<AxisOrder>()?, AxisOrder::Chw);
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AxisOrder {
    /// Height, width, channels, as NumPy and Pillow have it.
    Hwc,
    /// Channels, height, width, as PyTorch has it.
    Chw,
}

impl fmt::Display for AxisOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hwc => "HWC",
            Self::Chw => "CHW",
        })
    }
}

impl FromStr for AxisOrder {
    type Err = Error;

    /// Reads `HWC` or `CHW`, in letters of either case.
    fn from_str(text: &str) -> Result<Self> {
        let named = [Self::Hwc, Self::Chw].into_iter().find(|order| order.to_string().eq_ignore_ascii_case(text));
        named.ok_or_else(|| {
            Error::Config(format!(
                "the order of the axes must be 'HWC' (height, width, channels) or 'CHW' (channels, height, width), got \
                 '{text}'"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_have_names() {
        for order in [AxisOrder::Hwc, AxisOrder::Chw] {
            assert_eq!(order.to_string().parse::<AxisOrder>().unwrap(), order);
        }
        assert_eq!("chw".parse::<AxisOrder>().unwrap(), AxisOrder::Chw);
        let error = "WHC".parse::<AxisOrder>().unwrap_err().to_string();
        assert!(
            error.starts_with("the order of the axes must be 'HWC' (height, width, channels) or 'CHW' (ch"),
            "{error}"
        );
        assert!(error.ends_with(", got 'WHC'"), "{error}");
    }
}
