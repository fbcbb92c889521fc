//! Keys of `config.json`, timm's and those of transformers.

use serde_json::Value;

use crate::error::{Error, Result};

/// The configuration of a network; empty if there is no file.
#[derive(Debug)]
pub(super) struct NetworkConfig(Value);

impl NetworkConfig {
    pub(super) fn new(value: Value) -> Self {
        Self(value)
    }

    /// timm's name of the network, without its tag, such as `tf_efficientnet_b0`.
    pub(super) fn architecture(&self) -> Option<&str> {
        self.0.get("architecture")?.as_str()?.split('.').next()
    }

    /// transformers' name of the family, such as `dinov2`.
    pub(super) fn model_type(&self) -> Option<&str> {
        self.text("model_type")
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Whether a key is there and true.
    pub(super) fn is_true(&self, key: &str) -> bool {
        self.argument(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A positive whole number, or `None` if the key is not there.
    ///
    /// # Errors
    /// [`Error::Model`] if it is another value.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.argument(key) else { return Ok(None) };
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(Error::Model(format!("config.json has '{key}' {value}, expected a positive whole number"))),
        }
    }

    /// A number between 0 and 1, both excluded, or `None` if the key is not there.
    ///
    /// # Errors
    /// [`Error::Model`] if it is another value.
    pub(super) fn fraction(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.argument(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number < 1.0 => Ok(Some(number)),
            _ => Err(Error::Model(format!("config.json has '{key}' {value}, expected a number between 0 and 1"))),
        }
    }

    /// timm's preprocessing: under `pretrained_cfg`, or beside the rest in older files.
    pub(super) fn pretrained(&self) -> Option<&Value> {
        let nested = self.0.get("pretrained_cfg");
        nested.or_else(|| self.0.get("input_size").map(|_| &self.0)).filter(|value| value.is_object())
    }

    /// A value at the top, or among timm's `model_args`.
    fn argument(&self, key: &str) -> Option<&Value> {
        self.0.get(key).or_else(|| self.0.get("model_args")?.get(key)).filter(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_both_libraries() {
        let timm = NetworkConfig::new(json!({"architecture": "tf_efficientnet_b0.ns_jft_in1k",
            "model_args": {"num_heads": 2, "depth": null}, "pretrained_cfg": {"mean": [0.5]}}));
        assert_eq!(timm.architecture(), Some("tf_efficientnet_b0"));
        assert_eq!(timm.count("num_heads").unwrap(), Some(2));
        assert_eq!(timm.count("depth").unwrap(), None);
        assert_eq!(timm.pretrained().unwrap()["mean"][0], 0.5);
        let hub = NetworkConfig::new(json!({"model_type": "vit", "layer_norm_eps": 1e-12, "use_swiglu_ffn": true}));
        assert_eq!(hub.model_type(), Some("vit"));
        assert_eq!(hub.fraction("layer_norm_eps").unwrap(), Some(1e-12));
        assert!(hub.is_true("use_swiglu_ffn") && !hub.is_true("qkv_bias") && hub.pretrained().is_none());
    }

    #[test]
    fn numbers_that_are_none() {
        let config = NetworkConfig::new(json!({"heads": 0, "eps": 1}));
        let error = config.count("heads").unwrap_err().to_string();
        assert_eq!(error, "config.json has 'heads' 0, expected a positive whole number");
        let error = config.fraction("eps").unwrap_err().to_string();
        assert_eq!(error, "config.json has 'eps' 1, expected a number between 0 and 1");
    }
}
