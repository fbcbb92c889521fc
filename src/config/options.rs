//! How a model is trained: the options of `wae_train`, parsed once, at the edge.

use serde_json::Value;

use super::{Config, Cost, EncoderKind, IMQ_SCALES, KernelKind, Network, Objective, Parts, Prior, PriorKind};
use crate::error::{Error, Result};
use crate::image::{ImageShape, Preprocess};

/// The seed of every random choice when none is given.
pub const DEFAULT_SEED: u64 = 0;

/// Every option that [`TrainOptions::try_from_options`] takes.
pub const OPTION_NAMES: [&str; 19] = [
    "batch_size",
    "cost",
    "crop",
    "encoder",
    "epochs",
    "holdout",
    "kernel",
    "lambda",
    "latent_dim",
    "learning_rate",
    "network",
    "objective",
    "overwrite",
    "prior",
    "prior_scale",
    "scales",
    "schedule",
    "seed",
    "size",
];

/// Which network to train.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NetworkChoice {
    /// Fitted to the image size, [`Network::auto`].
    #[default]
    Auto,
    /// [`Network::small`].
    Small,
    /// [`Network::mnist`].
    Mnist,
    /// [`Network::celeba`].
    Celeba,
    /// The encoder's widths; the decoder mirrors them.
    Widths(Vec<usize>),
}

/// The learning rate over the epochs, as a factor of its initial value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// ½ from 60 % of the epochs on, ⅕ from 80 % on.
    #[default]
    Step,
    /// The authors' `manual`, whose decays multiply: ½ from epoch 30 on, 1/10 from 50, 1/100 from 100.
    Manual,
    /// The authors' `manual_smooth`: geometric from the first epoch on, 1/100 in the last.
    Smooth,
    /// 1 throughout.
    Constant,
}

impl Schedule {
    /// The factor in the epoch that follows `done` finished ones, of `epochs` in all.
    pub fn factor(self, done: usize, epochs: usize) -> f64 {
        let share = done as f64 / epochs.max(1) as f64;
        let falls =
            |steps: [(bool, f64); 3]| steps.into_iter().rev().find(|(reached, _)| *reached).map_or(1.0, |(_, f)| f);
        match self {
            Self::Step => falls([(share >= 0.6, 0.5), (share >= 0.8, 0.2), (false, 1.0)]),
            Self::Manual => falls([(done >= 30, 0.5), (done >= 50, 0.1), (done >= 100, 0.01)]),
            Self::Smooth => 0.01_f64.powf((done + 1) as f64 / epochs.max(1) as f64),
            Self::Constant => 1.0,
        }
    }

    /// The schedule's name, as `schedule =>` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Manual => "manual",
            Self::Smooth => "smooth",
            Self::Constant => "constant",
        }
    }
}

/// The options of a training, each valid by itself; [`TrainOptions::config`] checks them together once the image shape is
/// known.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Passes over the training rows (20).
    pub epochs: usize,
    /// Images a step (100, the paper's).
    pub batch_size: usize,
    /// Adam's initial learning rate (1e-3, the paper's for MNIST; β = 0.5, 0.999).
    pub learning_rate: f64,
    /// What becomes of the learning rate.
    pub schedule: Schedule,
    /// The layers.
    pub network: NetworkChoice,
    /// Side of the convolution kernel; 4, or 5 for celeba, when `None`.
    pub kernel_size: Option<usize>,
    /// d_z; 8 up to 32×32 grey and 64 beyond when `None`.
    pub latent_dim: Option<usize>,
    /// λ; [`Objective::auto_lambda`] when `None`.
    pub lambda: Option<f64>,
    /// The kernel of MMD.
    pub kernel: KernelKind,
    /// Bandwidth factors of the IMQ kernel.
    pub scales: Vec<f64>,
    /// The prior over codes.
    pub prior: Prior,
    /// The reconstruction cost.
    pub cost: Cost,
    /// Whether a code is a point or a distribution.
    pub encoder: EncoderKind,
    /// Resizing and cropping before the network sees an image.
    pub preprocess: Option<Preprocess>,
    /// Share of the rows kept for calibration, in [0, 1) (0.1).
    pub holdout: f64,
    /// The seed of initial weights, shuffles, prior samples and the held-out split (0).
    pub seed: u64,
    /// Whether a model of the same name may be replaced.
    pub overwrite: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 100,
            learning_rate: 1e-3,
            schedule: Schedule::default(),
            network: NetworkChoice::default(),
            kernel_size: None,
            latent_dim: None,
            lambda: None,
            kernel: KernelKind::default(),
            scales: IMQ_SCALES.to_vec(),
            prior: Prior::default(),
            cost: Cost::default(),
            encoder: EncoderKind::default(),
            preprocess: None,
            holdout: 0.1,
            seed: DEFAULT_SEED,
            overwrite: false,
        }
    }
}

impl TrainOptions {
    /// Reads options by name, as SQL or JSON gives them: numbers, strings, booleans, lists of numbers.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name, with the list of valid ones, for a name given twice, and for a value of
    /// the wrong type or range, with what was expected.
    ///
    /// # Example
    /// ```
    /// use serde_json::json;
    /// use wae_core::TrainOptions;
    ///
    /// let options = TrainOptions::try_from_options([("epochs", json!(3)), ("network", json!("32,64"))]).unwrap();
    /// assert_eq!(options.epochs, 3);
    /// let error = TrainOptions::try_from_options([("epoch", json!(3))]).unwrap_err();
    /// assert!(error.to_string().starts_with("unknown option 'epoch', expected one of batch_size, "));
    /// ```
    pub fn try_from_options<K: AsRef<str>>(options: impl IntoIterator<Item = (K, Value)>) -> Result<Self> {
        let (mut this, mut seen) = (Self::default(), Vec::new());
        let (mut size, mut crop) = (None, None);
        for (name, value) in options {
            let name = name.as_ref();
            if seen.iter().any(|s| s == name) {
                return Err(Error::Config(format!("option '{name}' is given twice")));
            }
            seen.push(name.to_owned());
            let given = Given { name, value: &value };
            match name {
                "size" => size = Some(given.sides()?),
                "crop" => crop = Some(given.sides()?),
                _ => this.set(&given)?,
            }
        }
        if size.is_some() || crop.is_some() {
            this.preprocess = Some(Preprocess::try_new(crop, size)?);
        }
        Ok(this)
    }

    fn set(&mut self, given: &Given<'_>) -> Result<()> {
        match given.name {
            "epochs" => self.epochs = given.integer(1, 1_000_000)? as usize,
            "batch_size" => self.batch_size = given.integer(2, 1 << 20)? as usize,
            "learning_rate" => {
                self.learning_rate = given.number("a number above 0 and at most 1", |v| v > 0.0 && v <= 1.0)?
            }
            "schedule" => {
                self.schedule = given.choice(&[
                    ("step", Schedule::Step),
                    ("manual", Schedule::Manual),
                    ("smooth", Schedule::Smooth),
                    ("constant", Schedule::Constant),
                ])?;
            }
            "network" => self.network = given.network()?,
            "latent_dim" => {
                self.latent_dim = given.auto(|g| g.integer(1, super::bounds::LATENT as u64))?.map(|v| v as usize)
            }
            "lambda" => {
                let range = 0.0..=super::bounds::LAMBDA;
                self.lambda = given.auto(|g| g.number("'auto' or a number from 0 to 1e12", |v| range.contains(&v)))?;
            }
            "objective" => given.choice(&[("mmd", ())])?,
            // One name for two things, as everywhere in the field: a number is the convolution's, a word is the MMD's.
            "kernel" if given.value.is_number() => {
                self.kernel_size = Some(given.integer(1, super::bounds::KERNEL as u64)? as usize);
            }
            "kernel" => self.kernel = given.choice(&[("imq", KernelKind::Imq), ("rbf", KernelKind::Rbf)])?,
            "scales" => self.scales = given.numbers()?,
            "prior" => self.prior.kind = given.choice(&[("normal", PriorKind::Normal)])?,
            "prior_scale" => {
                self.prior.scale = given.number("a number from 1e-6 to 1e6", |v| super::bounds::SCALE.contains(&v))?
            }
            "cost" => self.cost = given.choice(&[("squared", Cost::Squared)])?,
            "encoder" => self.encoder = given.choice(&[("deterministic", EncoderKind::Deterministic)])?,
            "holdout" => self.holdout = given.number("a number from 0 to less than 1", |v| (0.0..1.0).contains(&v))?,
            "seed" => self.seed = given.integer(0, u64::MAX)?,
            "overwrite" => self.overwrite = given.boolean()?,
            name => {
                return Err(Error::Config(format!(
                    "unknown option '{name}', expected one of {}",
                    OPTION_NAMES.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Checks what the parser checks, for options that were put together in code.
    ///
    /// # Errors
    /// [`Error::Config`], naming the first option out of range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |name: &str, expected: &str, got: f64| {
            Err(Error::Config(format!("option '{name}' must be {expected}, got {got}")))
        };
        if self.epochs == 0 {
            return refuse("epochs", "at least 1", 0.0);
        }
        if self.batch_size < 2 {
            return refuse("batch_size", "at least 2", self.batch_size as f64);
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return refuse("learning_rate", "a number above 0 and at most 1", self.learning_rate);
        }
        if !(0.0..1.0).contains(&self.holdout) {
            return refuse("holdout", "a number from 0 to less than 1", self.holdout);
        }
        Ok(())
    }

    /// The configuration of the model that these options train on images of one shape.
    ///
    /// # Errors
    /// [`Error::Config`] if the options do not fit the images or each other.
    pub fn config(&self, source: ImageShape) -> Result<Config> {
        self.config_of_preprocessed(self.preprocess.as_ref().map_or(source, |p| p.output(source)))
    }

    /// The configuration for images that have been resized and cropped.
    pub(crate) fn config_of_preprocessed(&self, image: ImageShape) -> Result<Config> {
        let kernel = |default: usize| self.kernel_size.unwrap_or(default);
        let with_kernel = |network: Network| Network { kernel: kernel(network.kernel), ..network };
        let network = match &self.network {
            NetworkChoice::Auto => Network::auto(image, kernel(4)),
            NetworkChoice::Small => with_kernel(Network::small()),
            NetworkChoice::Mnist => with_kernel(Network::mnist()),
            NetworkChoice::Celeba => with_kernel(Network::celeba()),
            NetworkChoice::Widths(widths) => Network::mirrored(widths.clone(), kernel(4)),
        };
        let latent_dim = self.latent_dim.unwrap_or(if image.len() <= 32 * 32 { 8 } else { 64 });
        let lambda = self.lambda.unwrap_or_else(|| Objective::auto_lambda(image, self.kernel, &self.scales));
        Config::try_new(Parts {
            image,
            latent_dim,
            network,
            encoder: self.encoder,
            prior: self.prior,
            cost: self.cost,
            objective: Objective::Mmd { kernel: self.kernel, scales: self.scales.clone(), lambda },
            preprocess: self.preprocess.clone(),
        })
    }
}

/// One option as it was given.
struct Given<'a> {
    name: &'a str,
    value: &'a Value,
}

impl Given<'_> {
    fn refuse<T>(&self, expected: impl std::fmt::Display) -> Result<T> {
        Err(Error::Config(format!("option '{}' must be {expected}, got {}", self.name, self.value)))
    }

    fn integer(&self, min: u64, max: u64) -> Result<u64> {
        match self.value.as_u64() {
            Some(v) if (min..=max).contains(&v) => Ok(v),
            _ => self.refuse(format_args!("an integer between {min} and {max}")),
        }
    }

    fn number(&self, expected: &str, valid: impl Fn(f64) -> bool) -> Result<f64> {
        match self.value.as_f64() {
            Some(v) if v.is_finite() && valid(v) => Ok(v),
            _ => self.refuse(expected),
        }
    }

    /// A list of positive numbers: a JSON array, one number, or a string such as `'0.5, 1, 2'`.
    fn numbers(&self) -> Result<Vec<f64>> {
        let numbers: Option<Vec<f64>> = match self.value {
            Value::Array(items) => items.iter().map(Value::as_f64).collect(),
            Value::String(text) => text.split(',').map(|t| t.trim().parse().ok()).collect(),
            other => other.as_f64().map(|v| vec![v]),
        };
        match numbers {
            Some(v) if !v.is_empty() && v.iter().all(|s| super::bounds::SCALE.contains(s)) => Ok(v),
            _ => self.refuse("a list of numbers from 1e-6 to 1e6, such as '0.5, 1, 2'"),
        }
    }

    fn boolean(&self) -> Result<bool> {
        self.value.as_bool().map_or_else(|| self.refuse("true or false"), Ok)
    }

    fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T> {
        let text = self.value.as_str().map(str::to_ascii_lowercase);
        match choices.iter().find(|(name, _)| Some(*name) == text.as_deref()) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
                self.refuse(names.join(" or "))
            }
        }
    }

    fn auto<T>(&self, parse: impl Fn(&Self) -> Result<T>) -> Result<Option<T>> {
        if self.value.as_str() == Some("auto") { Ok(None) } else { parse(self).map(Some) }
    }

    fn network(&self) -> Result<NetworkChoice> {
        let Some(text) = self.value.as_str() else {
            return self.refuse("'auto', 'small', 'mnist', 'celeba' or widths such as '32,64,128'");
        };
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(NetworkChoice::Auto),
            "small" => Ok(NetworkChoice::Small),
            "mnist" => Ok(NetworkChoice::Mnist),
            "celeba" => Ok(NetworkChoice::Celeba),
            list => {
                let widths: Option<Vec<usize>> = list
                    .split(',')
                    .map(|w| w.trim().parse().ok().filter(|w| (1..=super::bounds::WIDTH).contains(w)))
                    .collect();
                match widths {
                    Some(widths) if widths.len() <= super::bounds::LAYERS => Ok(NetworkChoice::Widths(widths)),
                    _ => self.refuse("'auto', 'small', 'mnist', 'celeba' or widths such as '32,64,128'"),
                }
            }
        }
    }

    /// One side or two: `64`, `'64'`, `'48x64'` (height × width).
    fn sides(&self) -> Result<(usize, usize)> {
        let parse = |text: &str| text.trim().parse::<usize>().ok().filter(|v| (1..=super::bounds::SIDE).contains(v));
        let sides = match self.value {
            Value::String(text) => match text.split_once(['x', 'X', '×']) {
                Some((h, w)) => parse(h).zip(parse(w)),
                None => parse(text).map(|s| (s, s)),
            },
            other => parse(&other.to_string()).map(|s| (s, s)),
        };
        sides.map_or_else(|| self.refuse("a side such as 64, or height and width such as '48x64'"), Ok)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("epochs", json!(0), "option 'epochs' must be an integer between 1 and 1000000, got 0")]
    #[case("epochs", json!(2.5), "option 'epochs' must be an integer between 1 and 1000000, got 2.5")]
    #[case("schedule", json!("linear"), "option 'schedule' must be 'step' or 'manual' or 'smooth' or 'constant', got \"linear\"")]
    #[case("holdout", json!(1.0), "option 'holdout' must be a number from 0 to less than 1, got 1.0")]
    #[case("network", json!("32,0"), "option 'network' must be 'auto', 'small', 'mnist', 'celeba' or widths such as '32,64,128', got \"32,0\"")]
    #[case("kernel", json!(8), "option 'kernel' must be an integer between 1 and 7, got 8")]
    #[case("kernel", json!("laplace"), "option 'kernel' must be 'imq' or 'rbf', got \"laplace\"")]
    #[case("size", json!("0x4"), "option 'size' must be a side such as 64, or height and width such as '48x64', got \"0x4\"")]
    #[case("scales", json!([1, -1]), "option 'scales' must be a list of numbers from 1e-6 to 1e6, such as '0.5, 1, 2', got [1,-1]")]
    #[case("overwrite", json!("yes"), "option 'overwrite' must be true or false, got \"yes\"")]
    #[case("lambda", json!(-1), "option 'lambda' must be 'auto' or a number from 0 to 1e12, got -1")]
    fn a_bad_value_says_what_was_expected(#[case] name: &str, #[case] value: Value, #[case] message: &str) {
        assert_eq!(TrainOptions::try_from_options([(name, value)]).unwrap_err().to_string(), message);
    }

    #[test]
    fn every_listed_option_is_known() {
        for name in OPTION_NAMES {
            let error = TrainOptions::try_from_options([(name, json!({}))]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("option '{name}' must be ")), "{error}");
        }
        assert!(OPTION_NAMES.is_sorted());
    }

    #[test]
    fn kernel_is_the_convolutions_or_the_divergences() {
        let options = TrainOptions::try_from_options([("kernel", json!("rbf"))]).unwrap();
        assert_eq!((options.kernel, options.kernel_size), (KernelKind::Rbf, None));
        let options = TrainOptions::try_from_options([("kernel", json!(3))]).unwrap();
        assert_eq!((options.kernel, options.kernel_size), (KernelKind::Imq, Some(3)));
    }

    #[rstest]
    #[case(Schedule::Step, 10, &[(0, 1.0), (5, 1.0), (6, 0.5), (7, 0.5), (8, 0.2), (9, 0.2)])]
    #[case(Schedule::Manual, 200, &[(29, 1.0), (30, 0.5), (50, 0.1), (100, 0.01)])]
    #[case(Schedule::Smooth, 2, &[(0, 0.1), (1, 0.01)])]
    #[case(Schedule::Constant, 3, &[(2, 1.0)])]
    fn schedules(#[case] schedule: Schedule, #[case] epochs: usize, #[case] factors: &[(usize, f64)]) {
        for &(done, factor) in factors {
            assert!((schedule.factor(done, epochs) - factor).abs() < 1e-12, "{schedule:?} after {done} of {epochs}");
        }
    }

    #[test]
    fn defaults_follow_the_image() {
        let config = TrainOptions::default().config(ImageShape::new(28, 28, 1)).unwrap();
        assert_eq!((config.latent_dim(), config.objective().lambda()), (8, 200.0));
        let config = TrainOptions::default().config(ImageShape::new(64, 64, 3)).unwrap();
        assert_eq!(config.latent_dim(), 64);
    }
}
