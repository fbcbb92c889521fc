//! The facts of a network that no tensor shows: with the tensors, all that is needed to build it again.

use serde::{Deserialize, Serialize};

use super::efficientnet::EfficientNet;
use super::family::FrozenNetwork;
use super::names::Naming;
use super::resnet::ResNet;
use super::vit::Vit;
use super::weights::PretrainedWeights;
use crate::error::{Error, Result};
use crate::ops::Target;

/// The most heads of a ViT.
const MAX_HEADS: usize = 1024;

/// The family of a network, and what its `config.json` says and no tensor shows.
///
/// As JSON, `{"family": "vit", "heads": 6, "epsilon": 1e-6, "names": "timm"}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase", deny_unknown_fields)]
pub enum BackboneArchitecture {
    /// ResNet.
    ResNet {
        /// Whether the first convolution of a block has the stride, and not that of 3 × 3.
        strides_first: bool,
    },
    /// ViT and DINOv2.
    Vit {
        /// Heads of the attention.
        heads: usize,
        /// ε of the norms.
        epsilon: f64,
        /// The library whose tokens have positions, and whose way it is to interpolate these.
        names: Naming,
    },
    /// EfficientNet.
    EfficientNet {
        /// Whether padding and ε of the norms are TensorFlow's.
        tensorflow: bool,
        /// Whether it is one without gates, whose nonlinearity is ReLU6.
        lite: bool,
    },
}

impl BackboneArchitecture {
    /// Builds the network of these tensors.
    ///
    /// # Errors
    /// Those of its tensors.
    pub(super) fn build(self, weights: &PretrainedWeights, target: &Target) -> Result<Box<dyn FrozenNetwork>> {
        Ok(match self {
            Self::ResNet { strides_first } => Box::new(ResNet::try_new(weights, strides_first, target)?),
            Self::Vit { heads, epsilon, names } => Box::new(Vit::try_new(weights, (heads, epsilon), names, target)?),
            Self::EfficientNet { tensorflow, lite } => {
                Box::new(EfficientNet::try_new(weights, tensorflow, lite, target)?)
            }
        })
    }

    /// The family, as messages and listings have it.
    pub fn family(self) -> &'static str {
        match self {
            Self::ResNet { .. } => "ResNet",
            Self::Vit { .. } => "ViT",
            Self::EfficientNet { .. } => "EfficientNet",
        }
    }

    /// Checks numbers that come from a model file.
    pub(crate) fn validate(self) -> Result<()> {
        let Self::Vit { heads, epsilon, .. } = self else { return Ok(()) };
        if !(1..=MAX_HEADS).contains(&heads) {
            return Err(Error::Config(format!("a backbone has {heads} heads, expected 1 to {MAX_HEADS}")));
        }
        if !(epsilon > 0.0 && epsilon < 1.0) {
            return Err(Error::Config(format!("a backbone has epsilon {epsilon}, expected a number between 0 and 1")));
        }
        Ok(())
    }
}
