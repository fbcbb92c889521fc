//! The kind of a model's input other than images.

use serde::{Deserialize, Serialize};

use super::{Cost, Parts, bounds, within};
use crate::error::{Error, Result};
use crate::image::AxisOrder;

/// The most channels of features.
pub const FEATURE_CHANNELS: usize = 4096;

/// The kind of input other than images. Its values are whitened before the network sees them ([`crate::whitening`]).
///
/// As JSON, `{"kind": "features", "channels": 768}`; a map of features whose axes the training was told the order of
/// has it as `"layout": "CHW"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Input {
    /// Finite numbers of any range: a vector, or a map of H×W places.
    Features {
        /// Values a place, before they are whitened.
        channels: usize,
        /// The order of the axes of columns that name none, if training was told one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layout: Option<AxisOrder>,
    },
}

impl Input {
    /// Checks the input by itself and with the configuration that it is a part of.
    pub(super) fn validate(&self, parts: &Parts) -> Result<()> {
        let Self::Features { channels, .. } = *self;
        within("the channels of features", channels, FEATURE_CHANNELS)?;
        within("the components of features", parts.image.channels(), channels)?;
        let values = parts.image.with_channels(channels).len();
        if values > bounds::ACTIVATION {
            let most = bounds::ACTIVATION;
            return Err(Error::Config(format!("a row of features has {values} values, expected at most {most}")));
        }
        if parts.preprocess.is_some() {
            return Err(Error::Config("input 'features' takes no size and no crop: they are for images".to_owned()));
        }
        check_cost(parts.cost)
    }
}

/// Refuses a cost that features have no use for: they are whitened, and one unit is one deviation.
pub(super) fn check_cost(cost: Cost) -> Result<()> {
    if cost == Cost::Squared {
        return Ok(());
    }
    Err(Error::Config(format!("input 'features' takes cost 'squared', got cost '{}'", cost.name())))
}
