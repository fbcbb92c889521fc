//! Options by name, as SQL or JSON gives them.

use serde_json::Value;

use super::given::Given;
use super::{LambdaSchedule, OPTION_NAMES, ObjectiveChoice, Preset, Schedule, TrainOptions, used};
use crate::config::{Cost, EncoderKind, KernelKind, PriorKind, bounds};
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::image::Preprocess;

/// Options that say nothing unless the objective is one of these.
const OF_OBJECTIVES: [(&str, &[ObjectiveChoice]); 4] = [
    ("scales", &[ObjectiveChoice::Mmd]),
    ("log_p", &[ObjectiveChoice::Gan, ObjectiveChoice::Aae]),
    ("adversary_widths", &[ObjectiveChoice::Gan, ObjectiveChoice::Aae]),
    ("adversary_learning_rate", &[ObjectiveChoice::Gan, ObjectiveChoice::Aae]),
];

const PRIORS: [(&str, PriorKind); 3] =
    [("normal", PriorKind::Normal), ("sphere", PriorKind::Sphere), ("uniform", PriorKind::Uniform)];

const COSTS: [(&str, Cost); 4] =
    [("squared", Cost::Squared), ("l2", Cost::L2), ("l1", Cost::L1), ("structural", Cost::Structural)];

impl TrainOptions {
    /// Reads options by name, as SQL or JSON gives them: numbers, strings, booleans, lists of numbers.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name, with the list of valid ones; [`Error::TrainOption`] for a name given twice, and for
    /// a value of the wrong type or range, with what was expected.
    ///
    /// # Example
    /// ```
    /// use serde_json::json;
    /// use wae_core::TrainOptions;
    ///
    /// let options = TrainOptions::try_from_options([("epochs", json!(3)), ("network", json!("32,64"))]).unwrap();
    /// assert_eq!(options.epochs, 3);
    /// let error = TrainOptions::try_from_options([("epoch", json!(3))]).unwrap_err();
    /// assert!(error.to_string().starts_with("unknown option 'epoch', expected one of adversary_learning_rate, "));
    /// ```
    pub fn try_from_options<K: AsRef<str>>(options: impl IntoIterator<Item = (K, Value)>) -> Result<Self> {
        let options: Vec<(K, Value)> = options.into_iter().collect();
        let mut seen: Vec<&str> = Vec::new();
        for (name, _) in &options {
            if seen.contains(&name.as_ref()) {
                return Err(Error::train_option(name.as_ref(), "is given twice"));
            }
            seen.push(name.as_ref());
        }
        let all: Vec<Given<'_>> = options.iter().map(|(name, value)| Given { name: name.as_ref(), value }).collect();
        let find = |name: &str| all.iter().find(|given| given.name == name);
        // The two that decide what the others are when they are left out.
        let objective = find("objective").map(|g| g.choice(&ObjectiveChoice::ALL)).transpose()?.unwrap_or_default();
        let mut this = match find("preset") {
            Some(given) => given.choice(&Preset::ALL)?.options(objective)?,
            None => Self { objective, ..Self::default() },
        };
        all.iter().try_for_each(|given| this.set(given))?;
        let (size, crop) = (find("size").map(Given::sides).transpose()?, find("crop").map(Given::sides).transpose()?);
        if size.is_some() || crop.is_some() {
            // What is left out beside a preset is the preset's.
            let preset = this.preprocess.as_ref();
            let (size, crop) = (size.or(preset.and_then(Preprocess::size)), crop.or(preset.and_then(Preprocess::crop)));
            this.preprocess = Some(Preprocess::try_new(crop, size)?);
        }
        // A preset's λ is in units of the squared cost and of seven IMQ scales.
        let other_unit = this.cost != Cost::Squared || this.kernel != KernelKind::Imq || find("scales").is_some();
        if find("lambda").is_none() && other_unit {
            this.lambda = None;
        }
        this.check_objective(&all)?;
        this.check_together()?;
        Ok(this)
    }

    /// Refuses options that the objective has no use for.
    fn check_objective(&self, given: &[Given<'_>]) -> Result<()> {
        let objective = used::name(&ObjectiveChoice::ALL, self.objective);
        let refuse =
            |option: &str| Err(Error::train_option(option, format!("does not go with objective '{objective}'")));
        for given in given {
            let useless = OF_OBJECTIVES.iter().any(|(o, of)| *o == given.name && !of.contains(&self.objective));
            let word = given.name == "kernel" && !given.value.is_number();
            let weight = matches!(given.name, "lambda" | "lambda_schedule");
            if useless
                || (word && self.objective != ObjectiveChoice::Mmd)
                || (weight && self.objective == ObjectiveChoice::Ae)
                || (given.name == "log_variance_penalty" && self.objective == ObjectiveChoice::Vae)
            {
                return refuse(given.name);
            }
        }
        Ok(())
    }

    /// Takes an option of how a model is trained, or of what it is.
    fn set(&mut self, given: &Given<'_>) -> Result<()> {
        match given.name {
            "epochs" => self.epochs = given.integer(1, 100_000)? as usize,
            "batch_size" => self.batch_size = given.integer(2, 1 << 20)? as usize,
            "learning_rate" => self.learning_rate = given.learning_rate()?,
            "schedule" => self.schedule = given.choice(&Schedule::ALL)?,
            "lambda" => {
                let range = 0.0..=bounds::LAMBDA;
                self.lambda = given.auto(|g| g.number("'auto' or a number from 0 to 1e12", |v| range.contains(&v)))?;
            }
            "lambda_schedule" => self.lambda_schedule = given.choice(&LambdaSchedule::ALL)?,
            "adversary_learning_rate" => self.adversary_learning_rate = given.auto(Given::learning_rate)?,
            "log_variance_penalty" => {
                self.log_variance_penalty = given.number("a number from 0 to 1e6", |v| (0.0..=1e6).contains(&v))?;
            }
            "noise" => self.noise = given.number("a number from 0 to 1", |v| (0.0..=1.0).contains(&v))?,
            "pretrain" => self.pretrain = given.boolean()?,
            // Read before the others, in try_from_options.
            "objective" | "preset" | "size" | "crop" => {}
            "holdout" => self.holdout = given.number("a number from 0 to less than 1", |v| (0.0..1.0).contains(&v))?,
            "seed" => self.seed = given.integer(0, u64::MAX)?,
            "checkpoint_every" => self.checkpoint_every = given.interval()?,
            "resume" => self.resume = given.boolean()?,
            "init" => self.init = Some(given.model()?),
            "overwrite" => self.overwrite = given.boolean()?,
            "device" => self.device = Some(given.device()?),
            "precision" => self.precision = Some(given.choice(&Precision::ALL)?),
            _ => self.set_model(given)?,
        }
        Ok(())
    }

    fn set_model(&mut self, given: &Given<'_>) -> Result<()> {
        match given.name {
            "network" => self.network = given.network()?,
            "latent_dim" => self.latent_dim = given.auto(|g| g.integer(1, bounds::LATENT as u64))?.map(|v| v as usize),
            // One name for two things, as everywhere in the field: a number is the convolution's, a word is the MMD's.
            "kernel" if given.value.is_number() => {
                self.kernel_size = Some(given.integer(1, bounds::KERNEL as u64)? as usize);
            }
            "kernel" => self.kernel = given.choice(&[("imq", KernelKind::Imq), ("rbf", KernelKind::Rbf)])?,
            "scales" => self.scales = given.numbers()?,
            "adversary_widths" => self.adversary_widths = given.widths()?,
            "log_p" => self.log_p = given.boolean()?,
            "prior" => self.prior.kind = given.choice(&PRIORS)?,
            "prior_scale" => {
                self.prior.scale = given.number("a number from 1e-6 to 1e6", |v| bounds::SCALE.contains(&v))?
            }
            "cost" => self.cost = given.choice(&COSTS)?,
            "encoder" => {
                let kinds = [("deterministic", EncoderKind::Deterministic), ("gaussian", EncoderKind::Gaussian)];
                self.encoder = given.auto(|g| g.choice(&kinds))?;
            }
            name => {
                return Err(Error::Config(format!(
                    "unknown option '{name}', expected one of {}",
                    OPTION_NAMES.join(", ")
                )));
            }
        }
        Ok(())
    }
}
