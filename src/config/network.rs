//! The layers of the encoder and the decoder.

use serde::{Deserialize, Serialize};

use super::{bounds, within};
use crate::error::{Error, Result};
use crate::image::ImageShape;

/// The encoder's and the decoder's layers.
///
/// As JSON, `{"encoder_channels": [32, 64], "decoder_channels": [64, 32], "kernel": 4}` or `{"dense": [256, 128]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Json", into = "Json")]
pub enum Network {
    /// Convolutions, for images and maps of features.
    Convolutions(Convolutions),
    /// The widths of the encoder's linear layers over all values of a row, each with batch norm and ReLU, before its
    /// head. The decoder has the same widths in reverse, and one more linear layer to the values of a row.
    Dense(Vec<usize>),
}

/// The convolutional encoder and decoder (paper, appendix C; `golden/reference.py`).
///
/// The encoder halves the image once a layer: SAME convolution of stride 2, batch norm, ReLU; then one linear layer,
/// the head. The decoder starts with a linear layer, the stem, doubles once a layer, and ends with a stride-1
/// convolution and, of images, a sigmoid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convolutions {
    /// Output channels of each encoder layer.
    pub encoder_channels: Vec<usize>,
    /// Channels of the decoder's stem, then of each layer that doubles the size.
    pub decoder_channels: Vec<usize>,
    /// Side of the square convolution kernel, in pixels.
    pub kernel: usize,
}

impl Convolutions {
    /// Layers of which the decoder's mirror the encoder's.
    pub fn mirrored(encoder_channels: Vec<usize>, kernel: usize) -> Self {
        let decoder_channels = encoder_channels.iter().rev().copied().collect();
        Self { encoder_channels, decoder_channels, kernel }
    }

    /// The smallest network that learns a 28×28 image well.
    pub fn small() -> Self {
        Self::mirrored(vec![32, 64, 128], 4)
    }

    /// The paper's MNIST network (authors' `configs.py`, `config_mnist`).
    pub fn mnist() -> Self {
        Self { encoder_channels: vec![128, 256, 512, 1024], decoder_channels: vec![1024, 512, 256], kernel: 4 }
    }

    /// The paper's CelebA network (authors' `configs.py`, `config_celebA`).
    pub fn celeba() -> Self {
        Self { encoder_channels: vec![128, 256, 512, 1024], decoder_channels: vec![1024, 512, 256, 128], kernel: 5 }
    }

    /// A network fitted to an image: it halves while the larger side exceeds 8 pixels and the smaller stays at 4 or
    /// more, with widths 32, 64, 128, 256, 256, ...
    pub fn auto(image: ImageShape, kernel: usize) -> Self {
        Self::halving(image, kernel, 32, 8)
    }

    /// A network fitted to a map of features: it halves while the smaller side stays at 4 or more, with widths 64, 128,
    /// 256, 256, ...
    pub fn auto_of_features(map: ImageShape, kernel: usize) -> Self {
        Self::halving(map, kernel, 64, 4)
    }

    /// Layers that halve while the larger side exceeds `large` and the smaller stays at 4 or more; their widths double
    /// from `first` to 256.
    fn halving(image: ImageShape, kernel: usize, first: usize, large: usize) -> Self {
        let mut long = image.height().max(image.width());
        let mut short = image.height().min(image.width());
        let mut widths = Vec::new();
        while widths.is_empty() || (long > large && short.div_ceil(2) >= 4 && widths.len() < bounds::LAYERS) {
            widths.push((first << widths.len().min(3)).min(256));
            long = long.div_ceil(2);
            short = short.div_ceil(2);
        }
        Self::mirrored(widths, kernel)
    }
}

impl Network {
    /// The name of its kind and its numbers, by which two networks are told apart in messages.
    pub(super) fn parts(&self) -> [(&'static str, String); 3] {
        let text = |widths: &[usize]| widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Convolutions(network) => [
                ("encoder widths", text(&network.encoder_channels)),
                ("decoder widths", text(&network.decoder_channels)),
                ("convolution kernel", network.kernel.to_string()),
            ],
            Self::Dense(widths) => {
                let none = || "none".to_owned();
                [
                    ("encoder widths", format!("dense:{}", text(widths))),
                    ("decoder widths", none()),
                    ("convolution kernel", none()),
                ]
            }
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let widths = |what: &str, name: &str, widths: &[usize]| {
            within(&format!("the number of {what}"), widths.len(), bounds::LAYERS)?;
            widths.iter().try_for_each(|width| within(&format!("a width in {name}"), *width, bounds::WIDTH))
        };
        match self {
            Self::Convolutions(network) => {
                widths("encoder_channels", "encoder_channels", &network.encoder_channels)?;
                widths("decoder_channels", "decoder_channels", &network.decoder_channels)?;
                within("kernel", network.kernel, bounds::KERNEL)
            }
            Self::Dense(network) => widths("dense layers", "dense", network),
        }
    }
}

impl From<Convolutions> for Network {
    fn from(network: Convolutions) -> Self {
        Self::Convolutions(network)
    }
}

/// The JSON of a network: the keys of one kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoder_channels: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decoder_channels: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dense: Option<Vec<usize>>,
}

impl TryFrom<Json> for Network {
    type Error = Error;

    fn try_from(json: Json) -> Result<Self> {
        match json {
            Json {
                encoder_channels: Some(encoder_channels),
                decoder_channels: Some(decoder_channels),
                kernel: Some(kernel),
                dense: None,
            } => Ok(Self::Convolutions(Convolutions { encoder_channels, decoder_channels, kernel })),
            Json { encoder_channels: None, decoder_channels: None, kernel: None, dense: Some(widths) } => {
                Ok(Self::Dense(widths))
            }
            _ => Err(Error::Config(
                "network must have either dense, or encoder_channels, decoder_channels and kernel".to_owned(),
            )),
        }
    }
}

impl From<Network> for Json {
    fn from(network: Network) -> Self {
        match network {
            Network::Convolutions(Convolutions { encoder_channels, decoder_channels, kernel }) => Self {
                encoder_channels: Some(encoder_channels),
                decoder_channels: Some(decoder_channels),
                kernel: Some(kernel),
                dense: None,
            },
            Network::Dense(widths) => Self { dense: Some(widths), ..Self::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case((28, 28, 1), &[32, 64])]
    #[case((64, 64, 3), &[32, 64, 128])]
    #[case((256, 256, 3), &[32, 64, 128, 256, 256])]
    #[case((4, 100, 1), &[32])]
    #[case((1, 1, 1), &[32])]
    fn auto_network(#[case] (h, w, c): (usize, usize, usize), #[case] widths: &[usize]) {
        assert_eq!(Convolutions::auto(ImageShape::new(h, w, c), 4).encoder_channels, widths);
    }

    #[rstest]
    #[case(8, &[64])]
    #[case(14, &[64, 128])]
    #[case(28, &[64, 128, 256])]
    #[case(56, &[64, 128, 256, 256])]
    fn auto_network_of_features(#[case] side: usize, #[case] widths: &[usize]) {
        assert_eq!(Convolutions::auto_of_features(ImageShape::new(side, side, 100), 4).encoder_channels, widths);
    }

    #[rstest]
    #[case::neither("{}", "network must have either dense, or encoder_channels, decoder_channels and kernel")]
    #[case::both(r#"{"dense": [4], "kernel": 4}"#, "network must have either dense")]
    #[case::unknown(r#"{"dense": [4], "depth": 4}"#, "unknown field `depth`")]
    #[case::kind(r#"{"dense": 4}"#, "invalid type: integer `4`")]
    fn json_of_no_network_is_refused(#[case] json: &str, #[case] message: &str) {
        let error = serde_json::from_str::<Network>(json).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
