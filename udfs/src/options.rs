//! The session options `wae.*`.
//!
//! ```sql
//! SET wae.model_dir = '/data/models';
//! SET wae.model = 'fashion';
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use datafusion::common::{Result, config_datafusion_err, config_err};
use datafusion::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::execution::object_store::ObjectStoreRegistry;
use wae_core::calibrate::Score;
use wae_core::checkpoint::MAX_BYTES;
use wae_core::error::unknown_name;
use wae_core::image::Limits;
use wae_core::{Device, Error, Precision};

/// The answer to an unreadable image, in scoring and in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnError {
    /// The query fails, naming the row.
    #[default]
    Error,
    /// NULL in scoring; skipped and counted in training.
    Null,
}

const DEVICE: &str =
    "Where models are trained and computed: auto, cpu, cuda, cuda:N, metal or metal:N, of the kinds that are built in";

/// The options of a session, set by `SET wae.<name> = <value>`.
///
/// Written by hand because DataFusion's macro lists its keys without the prefix, which `SHOW` does not find and which
/// another node of a cluster cannot set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WaeOptions {
    model: Option<String>,
    model_dir: String,
    weights_dir: String,
    device: Device,
    precision: Precision,
    batch_size: usize,
    on_error: OnError,
    score: Option<Score>,
    confidence: Option<Confidence>,
    max_pixels: usize,
    max_image_bytes: usize,
    cache_bytes: usize,
    max_model_bytes: usize,
    max_sample_rows: usize,
    object_stores: ObjectStores,
}

/// A probability above 0 and below 1, and so no NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Confidence(f64);

impl Eq for Confidence {}

impl Hash for Confidence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// The object stores of a session. They are no option: `SET` does not change them and no other node receives them.
#[derive(Debug, Clone, Default)]
struct ObjectStores(Option<Arc<dyn ObjectStoreRegistry>>);

static DEFAULT_OBJECT_STORES: OnceLock<Arc<dyn ObjectStoreRegistry>> = OnceLock::new();

/// Sets the object stores of options that have none of their own: those that another node of a cluster sent as text. A
/// scheduler or executor gives those of its first RuntimeEnv, which stay: a later call changes nothing, so that tasks
/// that run beside each other find the same stores, and share the models in memory.
pub fn set_default_object_stores(registry: Arc<dyn ObjectStoreRegistry>) {
    DEFAULT_OBJECT_STORES.get_or_init(|| registry);
}

impl ObjectStores {
    fn address(&self) -> Option<*const ()> {
        self.0.as_ref().map(|registry| Arc::as_ptr(registry).cast())
    }
}

impl PartialEq for ObjectStores {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for ObjectStores {}

impl Hash for ObjectStores {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

impl Default for WaeOptions {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            model: None,
            model_dir: "models".to_owned(),
            weights_dir: ".".to_owned(),
            device: Device::Auto,
            precision: Precision::F32,
            batch_size: 256,
            on_error: OnError::default(),
            score: None,
            confidence: None,
            max_pixels: limits.max_pixels,
            max_image_bytes: limits.max_image_bytes,
            cache_bytes: 1 << 30,
            max_model_bytes: MAX_BYTES,
            max_sample_rows: 1_000_000,
            object_stores: ObjectStores::default(),
        }
    }
}

impl WaeOptions {
    /// The options of a session, or the defaults where the plugin's options are not registered.
    pub fn of(config: &ConfigOptions) -> Self {
        config.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// The model taken where a function is called without one.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The options as they travel to another node.
    pub(crate) fn to_message(&self) -> BTreeMap<String, String> {
        self.entries().into_iter().filter_map(|entry| Some((entry.key, entry.value?))).collect()
    }

    /// The options that travelled.
    ///
    /// # Errors
    /// A configuration error for an option that this version does not know.
    pub(crate) fn of_message(message: &BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self::default();
        message.iter().try_for_each(|(key, value)| options.set(key, value))?;
        Ok(options)
    }

    /// The same options, with the object stores that `wae.model_dir` and `wae.weights_dir` may be URLs of: those of a
    /// RuntimeEnv. Contexts that went through [`register_all`](crate::register_all) have theirs; a node of a cluster
    /// whose options are put together in another way needs this, or [`set_default_object_stores`].
    pub fn with_object_stores(mut self, registry: Arc<dyn ObjectStoreRegistry>) -> Self {
        self.object_stores = ObjectStores(Some(registry));
        self
    }

    /// The folder that holds the model files: a path, or a URL of a registered object store.
    pub fn model_dir(&self) -> &str {
        &self.model_dir
    }

    /// The folder below which pretrained networks are found: a path, or a URL of a registered object store.
    pub fn weights_dir(&self) -> &str {
        &self.weights_dir
    }

    /// The object stores that the folder may be in.
    pub(crate) fn object_stores(&self) -> Option<Arc<dyn ObjectStoreRegistry>> {
        self.object_stores.0.clone().or_else(|| DEFAULT_OBJECT_STORES.get().map(Arc::clone))
    }

    /// Bytes that a model's file may have.
    pub fn max_model_bytes(&self) -> usize {
        self.max_model_bytes
    }

    /// Where models are trained and computed.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The precision that models compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Rows read and computed at a time, at least 1; the engine splits them further where layers are large.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The answer to an unreadable image.
    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// The score of p-values and verdicts; the model's own when `None`.
    pub fn score(&self) -> Option<Score> {
        self.score
    }

    /// The probability with which verdicts, masks and regions keep their rate of false alarms for the held-out rows at hand;
    /// without one, they keep it on average over draws of such rows.
    pub fn confidence(&self) -> Option<f64> {
        self.confidence.map(|confidence| confidence.0)
    }

    /// Whether a row that cannot be read for this reason becomes NULL.
    pub(crate) fn forgives(&self, error: &Error) -> bool {
        self.on_error == OnError::Null && matches!(error, Error::Data(_) | Error::Shape { .. } | Error::Row { .. })
    }

    /// The largest encoded image that is read.
    pub fn limits(&self) -> Limits {
        Limits { max_pixels: self.max_pixels, max_image_bytes: self.max_image_bytes }
    }

    /// Bytes that models and pretrained networks in memory may take together.
    pub fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Rows that a call of `wae_sample` may give.
    pub fn max_sample_rows(&self) -> usize {
        self.max_sample_rows
    }

    /// Each option's name, value and description.
    fn list(&self) -> [(&'static str, Option<String>, &'static str); 14] {
        let on_error = match self.on_error {
            OnError::Error => "error",
            OnError::Null => "null",
        };
        [
            ("model", self.model.clone(), "Model taken where a function is called without one"),
            (
                "model_dir",
                Some(self.model_dir.clone()),
                "Where the model files are: a folder, or a URL of a registered object store",
            ),
            (
                "weights_dir",
                Some(self.weights_dir.clone()),
                "Where pretrained networks are: a folder, or a URL of a registered object store",
            ),
            ("device", Some(self.device.to_string()), DEVICE),
            (
                "precision",
                Some(self.precision.name().to_owned()),
                "What scoring computes in: f32, or bf16 (faster on GPUs and processors with AVX512_BF16, costs change by \
                 up to a hundredth; other processors compute in f32 and say so once in the log), or tf32 (on GPUs); \
                 training on a GPU too",
            ),
            ("batch_size", Some(self.batch_size.to_string()), "Rows read and computed at a time"),
            ("on_error", Some(on_error.to_owned()), "What an unreadable image gives: error or null"),
            (
                "score",
                self.score.map(|score| score.name().to_owned()),
                "The score of p-values and verdicts: anomaly_score, cost or latent_distance; the model's own where it is not set",
            ),
            (
                "confidence",
                self.confidence().map(|confidence| confidence.to_string()),
                "The probability with which alpha holds for the held-out rows at hand, between 0 and 1; where it is not set, \
                 alpha holds on average over draws of such rows",
            ),
            ("max_pixels", Some(self.max_pixels.to_string()), "Most pixels (height x width) an image may declare"),
            ("max_image_bytes", Some(self.max_image_bytes.to_string()), "Most bytes an encoded image may have"),
            (
                "cache_bytes",
                Some(self.cache_bytes.to_string()),
                "Bytes of memory that cached models and pretrained networks may take",
            ),
            ("max_model_bytes", Some(self.max_model_bytes.to_string()), "Most bytes a model's file may have"),
            ("max_sample_rows", Some(self.max_sample_rows.to_string()), "Most rows of a call of wae_sample"),
        ]
    }

    fn assign(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "model" => self.model = (!value.is_empty()).then(|| value.to_owned()),
            "model_dir" if value.is_empty() => return config_err!("wae.model_dir must be a folder or a URL, got ''"),
            "model_dir" => self.model_dir = value.to_owned(),
            "weights_dir" if value.is_empty() => {
                return config_err!("wae.weights_dir must be a folder or a URL, got ''");
            }
            "weights_dir" => self.weights_dir = value.to_owned(),
            "device" => self.device = device(value)?,
            "precision" => {
                let name = choice(name, value, &Precision::ALL.map(|(name, _)| name))?;
                self.precision = Precision::ALL.iter().find(|(n, _)| *n == name).map_or(Precision::F32, |(_, p)| *p);
            }
            "batch_size" => self.batch_size = integer(name, value, 1)?,
            "on_error" => {
                let null = choice(name, value, &["error", "null"])? == "null";
                self.on_error = if null { OnError::Null } else { OnError::Error };
            }
            "score" if value.is_empty() => self.score = None,
            "score" => {
                let name = choice(name, value, &Score::ALL.map(|(name, _)| name))?;
                self.score = Score::ALL.iter().find(|(n, _)| *n == name).map(|(_, score)| *score);
            }
            "confidence" if value.is_empty() => self.confidence = None,
            "confidence" => self.confidence = Some(confidence(value)?),
            "max_pixels" => self.max_pixels = integer(name, value, 1)?,
            "max_image_bytes" => self.max_image_bytes = integer(name, value, 1)?,
            "cache_bytes" => self.cache_bytes = integer(name, value, 0)?,
            "max_model_bytes" => self.max_model_bytes = integer(name, value, 1)?,
            "max_sample_rows" => self.max_sample_rows = integer(name, value, 0)?,
            _ => {
                let names: Vec<_> = self.list().iter().map(|(name, ..)| format!("wae.{name}")).collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                return config_err!("{}", unknown_name("option", &format!("wae.{name}"), &names));
            }
        }
        Ok(())
    }
}

impl ConfigExtension for WaeOptions {
    const PREFIX: &'static str = "wae";
}

impl ExtensionOptions for WaeOptions {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        // `SET` hands over the key without its prefix, a cluster's other nodes as `entries` lists it.
        self.assign(key.strip_prefix("wae.").unwrap_or(key), value)
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        self.list()
            .into_iter()
            .map(|(name, value, description)| ConfigEntry { key: format!("wae.{name}"), value, description })
            .collect()
    }
}

fn integer(name: &str, value: &str, min: usize) -> Result<usize> {
    usize::from_str(value)
        .ok()
        .filter(|v| *v >= min)
        .ok_or_else(|| config_datafusion_err!("wae.{name} must be an integer of at least {min}, got '{value}'"))
}

fn confidence(value: &str) -> Result<Confidence> {
    let confidence = f64::from_str(value).ok().filter(|confidence| *confidence > 0.0 && *confidence < 1.0);
    confidence.map(Confidence).ok_or_else(|| {
        config_datafusion_err!(
            "wae.confidence must be a number between 0 and 1, both excluded, or '' for none, got '{value}'"
        )
    })
}

fn device(value: &str) -> Result<Device> {
    Device::from_name(value).ok_or_else(|| {
        let kinds = [("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))];
        let lower = value.to_ascii_lowercase();
        let missing = kinds.iter().find(|(kind, built_in)| !built_in && lower.starts_with(kind));
        let missing = missing.map(|(kind, _)| format!(" ({kind} is not built in)")).unwrap_or_default();
        config_datafusion_err!("wae.device must be {}, got '{value}'{missing}", Device::NAMES)
    })
}

/// The one of `choices` that a value is, in any case.
fn choice(name: &str, value: &str, choices: &[&str]) -> Result<String> {
    if let Some(choice) = choices.iter().find(|c| c.eq_ignore_ascii_case(value)) {
        return Ok((*choice).to_owned());
    }
    config_err!("wae.{name} must be {}, got '{value}'", choices.join(" or "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("batch_size", "0", "wae.batch_size must be an integer of at least 1, got '0'")]
    #[case("wae.batch_size", "ten", "wae.batch_size must be an integer of at least 1, got 'ten'")]
    #[case("device", "gpu", "wae.device must be auto")]
    #[case("precision", "f16", "wae.precision must be f32 or tf32 or bf16, got 'f16'")]
    #[case("score", "best", "wae.score must be cost or latent_distance or anomaly_score, got 'best'")]
    #[case(
        "confidence",
        "1",
        "wae.confidence must be a number between 0 and 1, both excluded, or '' for none, got '1'"
    )]
    #[case("confidence", "0.0", "wae.confidence must be a number between 0 and 1")]
    #[case("confidence", "NaN", "got 'NaN'")]
    #[case("confidence", "95 %", "got '95 %'")]
    #[case("on_error", "skip", "wae.on_error must be error or null, got 'skip'")]
    #[case("cache_bytes", "-1", "wae.cache_bytes must be an integer of at least 0, got '-1'")]
    #[case("max_pixels", "1.5", "wae.max_pixels must be an integer of at least 1, got '1.5'")]
    #[case("model_dir", "", "wae.model_dir must be a folder or a URL, got ''")]
    #[case("weights_dir", "", "wae.weights_dir must be a folder or a URL, got ''")]
    #[case("models", "x", "unknown option 'wae.models', expected one of wae.model, wae.model_dir, wae.weights_dir")]
    fn a_bad_value_says_what_was_expected(#[case] key: &str, #[case] value: &str, #[case] message: &str) {
        let error = WaeOptions::default().set(key, value).unwrap_err().strip_backtrace();
        assert!(error.contains(message), "{error}");
    }

    #[rstest]
    #[case("CUDA:1", Device::Cuda(1), cfg!(feature = "cuda"))]
    #[case("cuda", Device::Cuda(0), cfg!(feature = "cuda"))]
    #[case("metal:0", Device::Metal(0), cfg!(feature = "metal"))]
    fn a_gpu_is_taken_where_its_kind_is_built_in(#[case] name: &str, #[case] device: Device, #[case] built_in: bool) {
        let mut options = WaeOptions::default();
        match options.set("device", name) {
            Ok(()) => assert!(built_in && options.device() == device),
            Err(e) => {
                let error = e.strip_backtrace();
                assert!(!built_in && error.contains("wae.device must be auto"), "{error}");
                assert!(error.contains(&format!("got '{name}' (")) && error.contains("is not built in"), "{error}");
            }
        }
    }

    #[test]
    fn entries_can_be_set_again() {
        let mut first = WaeOptions::default();
        for (key, value) in [
            ("model", "m"),
            ("wae.on_error", "NULL"),
            ("wae.score", "Cost"),
            ("confidence", "0.95"),
            ("device", "cpu"),
            ("precision", "BF16"),
        ] {
            first.set(key, value).unwrap();
        }
        let mut second = WaeOptions::default();
        for entry in first.entries() {
            assert!(entry.key.starts_with("wae."));
            second.set(&entry.key, &entry.value.unwrap()).unwrap();
        }
        assert_eq!(first, second);
        assert_eq!(second.confidence(), Some(0.95));
        second.set("confidence", "").unwrap();
        assert_eq!(second.confidence(), None);
    }
}
