//! The version of a pretrained network that a call computes with.
//!
//! Planning pins a call to the files' content by the SHA-256 in its arguments ([`super::versioned`]). Here the network
//! is held beside it, so that each batch is computed by it, whatever becomes of the files and of the cache. A call that
//! travelled to another node reads the network when the first row needs it, and keeps it.

use std::sync::{Arc, OnceLock};

use datafusion::common::Result;
use wae_core::backbone::Backbone;

use super::{load, split_version};
use crate::options::WaeOptions;

/// The pretrained network of a call; none of a call that no planning has pinned.
#[derive(Debug, Clone, Default)]
pub(crate) struct PinnedNetwork(Option<Arc<OnceLock<Arc<Backbone>>>>);

impl PinnedNetwork {
    /// The network that planning read.
    pub(crate) fn new(network: Arc<Backbone>) -> Self {
        Self(Some(Arc::new(OnceLock::from(network))))
    }

    /// The network of a call from another node, which is read when it is needed.
    pub(crate) fn travelled() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether the network is in memory.
    pub(crate) fn is_loaded(&self) -> bool {
        self.0.as_ref().is_some_and(|network| network.get().is_some())
    }

    /// The network of a name, or of a version of it: the pinned one where it is of that version.
    ///
    /// # Errors
    /// Those of [`load`].
    pub(crate) fn load(&self, function: &str, weights: &str, options: &WaeOptions) -> Result<Arc<Backbone>> {
        let (_, version) = split_version(weights);
        let (Some(pinned), Some(version)) = (&self.0, version) else {
            return load(function, weights, options.device(), options);
        };
        if let Some(network) = pinned.get().filter(|network| network.sha256() == version) {
            return Ok(Arc::clone(network));
        }
        let network = load(function, weights, options.device(), options)?;
        pinned.get_or_init(|| Arc::clone(&network));
        Ok(network)
    }
}
