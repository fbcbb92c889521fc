//! The version of a model that a call computes with.
//!
//! Planning pins a call to a file's content, so that every row of a query is computed by one version, whatever becomes
//! of the file. Here that is the model in memory. To another node the pin travels as the model's name, its hash and the
//! options that it was found under: there the file of that name is read when the first row needs it, and another
//! content is an error, not another score.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use datafusion::common::{DataFusionError, Result, exec_err, plan_datafusion_err};
use serde::{Deserialize, Serialize};

use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;

/// A model's name and the hash of its content, with the model itself where it is in memory.
#[derive(Debug, Clone)]
pub(crate) struct Pin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    sha256: String,
    options: WaeOptions,
    model: OnceLock<Arc<LoadedModel>>,
}

/// A pin as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    model: String,
    sha256: String,
    options: BTreeMap<String, String>,
}

impl Pin {
    /// A model that planning read under a session's options.
    pub(crate) fn new(model: Arc<LoadedModel>, options: WaeOptions) -> Self {
        let name = model.name().to_owned();
        let sha256 = model.sha256().to_owned();
        Self(Arc::new(Inner { name, sha256, options, model: OnceLock::from(model) }))
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// The SHA-256 of its content, in hexadecimal.
    pub(crate) fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// The options that the query was planned under.
    pub(crate) fn options(&self) -> &WaeOptions {
        &self.0.options
    }

    /// The model, where it is in memory: always on the node that planned the query.
    pub(crate) fn loaded(&self) -> Option<&LoadedModel> {
        self.0.model.get().map(Arc::as_ref)
    }

    /// The model, which a node that the pin travelled to reads at the first call.
    ///
    /// # Errors
    /// Those of [`models::load`]; an execution error if the file has another content than the query was planned with.
    pub(crate) fn model(&self, function: &str) -> Result<Arc<LoadedModel>> {
        if let Some(model) = self.0.model.get() {
            return Ok(Arc::clone(model));
        }
        let Inner { name, sha256, options, .. } = self.0.as_ref();
        let model = models::load(function, name, options)?;
        if model.sha256() != sha256 {
            return exec_err!(
                "{function}: the query was planned with model '{name}' of sha256 {sha256}, wae.model_dir holds another of \
                 this name, of sha256 {}",
                model.sha256()
            );
        }
        Ok(Arc::clone(self.0.model.get_or_init(|| model)))
    }

    /// The pin as it travels.
    pub(crate) fn message(&self) -> Message {
        let options = self.0.options.to_message();
        Message { model: self.name().to_owned(), sha256: self.sha256().to_owned(), options }
    }

    /// The pin that travelled; no file is read yet.
    ///
    /// # Errors
    /// A configuration error for an option that this version does not know.
    pub(crate) fn of_message(message: Message) -> Result<Self> {
        let options = WaeOptions::of_message(&message.options)?;
        let Message { model: name, sha256, .. } = message;
        Ok(Self(Arc::new(Inner { name, sha256, options, model: OnceLock::new() })))
    }

    /// The bytes that travel.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings as keys and values: writing them cannot fail.
        serde_json::to_vec(&self.message()).unwrap_or_default()
    }

    /// Reads the bytes; no file is read yet.
    ///
    /// # Errors
    /// A plan error if they are no pin, as from a node with another version of the plugin.
    pub(crate) fn decode(function: &str, bytes: &[u8]) -> Result<Self> {
        Self::of_message(serde_json::from_slice(bytes).map_err(|e| without_version(function, &e))?)
    }
}

/// The error of a call that travelled without the version of its model.
pub(crate) fn without_version(function: &str, reason: &dyn Display) -> DataFusionError {
    plan_datafusion_err!(
        "{function}: the call came without the version of its model ({reason}), expected one that a node with this \
         version of the plugin planned"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sha256: &str, dir: &str) -> Vec<u8> {
        let options = BTreeMap::from([("wae.model_dir".to_owned(), dir.to_owned())]);
        serde_json::to_vec(&Message { model: "m".to_owned(), sha256: sha256.to_owned(), options }).unwrap()
    }

    #[test]
    fn a_pin_travels_without_its_model() {
        let pin = Pin::decode("f", &message("00ff", "/nowhere")).unwrap();
        assert_eq!((pin.name(), pin.sha256()), ("m", "00ff"));
        let again = Pin::decode("f", &pin.encode()).unwrap();
        assert_eq!((again.name(), again.sha256(), again.options()), ("m", "00ff", pin.options()));
        let error = pin.model("f").unwrap_err().strip_backtrace();
        assert!(error.contains("f: no model 'm': there is no folder '/nowhere'"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_pin_are_refused() {
        for bytes in [&b""[..], b"{}", b"{\"model\": 1}"] {
            let error = Pin::decode("wae_encode", bytes).unwrap_err().strip_backtrace();
            assert!(error.contains("wae_encode: the call came without the version of its model"), "{error}");
        }
        let unknown = br#"{"model": "m", "sha256": "00", "options": {"wae.none": "1"}}"#;
        let error = Pin::decode("f", unknown).unwrap_err().strip_backtrace();
        assert!(error.contains("unknown option 'wae.none'"), "{error}");
    }
}
