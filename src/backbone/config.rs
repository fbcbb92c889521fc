//! Keys of `config.json`, timm's and those of transformers.

use serde_json::Value;

use crate::error::{Error, Result};

/// The `model_args` of timm that are read, that tensors show, or that matter in training alone.
const READ: [&str; 17] = [
    "num_heads",
    "img_size",
    "num_classes",
    "in_chans",
    "global_pool",
    "embed_dim",
    "depth",
    "patch_size",
    "mlp_ratio",
    "qkv_bias",
    "class_token",
    "no_embed_class",
    "reg_tokens",
    "init_values",
    "dynamic_img_size",
    "drop_rate",
    "drop_path_rate",
];

/// The configuration of a network; empty if there is no file.
#[derive(Debug)]
pub(super) struct NetworkConfig(Value);

impl NetworkConfig {
    pub(super) fn new(value: Value) -> Self {
        Self(value)
    }

    /// Whether it says nothing, as where there is no file.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_object().is_none_or(serde_json::Map::is_empty)
    }

    /// timm's name of the network, without its tag, such as `tf_efficientnet_b0`.
    pub(super) fn architecture(&self) -> Option<&str> {
        self.0.get("architecture")?.as_str()?.split('.').next()
    }

    /// transformers' name of the family, such as `dinov2`.
    ///
    /// # Errors
    /// [`Error::Model`] if it is no text.
    pub(super) fn model_type(&self) -> Result<Option<&str>> {
        self.text("model_type")
    }

    /// A text, or `None` if the key is not there.
    ///
    /// # Errors
    /// [`Error::Model`] if it is another value.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.argument(key) else { return Ok(None) };
        let text = value.as_str();
        text.map(Some).ok_or_else(|| Error::Model(format!("config.json has '{key}' {value}, expected a text")))
    }

    /// Whether a key is there and true.
    ///
    /// # Errors
    /// [`Error::Model`] if it is neither true nor false.
    pub(super) fn is_true(&self, key: &str) -> Result<bool> {
        let Some(value) = self.argument(key) else { return Ok(false) };
        let truth = value.as_bool();
        truth.ok_or_else(|| Error::Model(format!("config.json has '{key}' {value}, expected true or false")))
    }

    /// The first of timm's `model_args` that changes the network in a way that no tensor shows, and that is not read.
    pub(super) fn unread_argument(&self) -> Option<&str> {
        let arguments = self.0.get("model_args")?.as_object()?;
        let is_unread = |(key, value): &(&String, &Value)| !value.is_null() && !READ.contains(&key.as_str());
        arguments.iter().find(is_unread).map(|(key, _)| key.as_str())
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
        let nested = self.0.get("pretrained_cfg").filter(|value| value.is_object());
        nested.or_else(|| self.0.get("input_size").map(|_| &self.0))
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
        assert_eq!(hub.model_type().unwrap(), Some("vit"));
        assert_eq!(hub.fraction("layer_norm_eps").unwrap(), Some(1e-12));
        assert!(
            hub.is_true("use_swiglu_ffn").unwrap() && !hub.is_true("qkv_bias").unwrap() && hub.pretrained().is_none()
        );
    }

    #[test]
    fn arguments_of_timm_that_are_not_read() {
        let of = |arguments: Value| {
            NetworkConfig::new(json!({"model_args": arguments})).unread_argument().map(str::to_owned)
        };
        assert_eq!(of(json!({"depth": 12, "act_layer": null})), None);
        assert_eq!(of(json!({"depth": 12, "output_stride": 8})).as_deref(), Some("output_stride"));
    }

    #[test]
    fn values_of_another_type() {
        let config = NetworkConfig::new(json!({"heads": 0, "eps": 1, "bias": "true", "act": 3}));
        let error = config.is_true("bias").unwrap_err().to_string();
        assert_eq!(error, "config.json has 'bias' \"true\", expected true or false");
        let error = config.text("act").unwrap_err().to_string();
        assert_eq!(error, "config.json has 'act' 3, expected a text");
        let error = config.count("heads").unwrap_err().to_string();
        assert_eq!(error, "config.json has 'heads' 0, expected a positive whole number");
        let error = config.fraction("eps").unwrap_err().to_string();
        assert_eq!(error, "config.json has 'eps' 1, expected a number between 0 and 1");
    }
}
