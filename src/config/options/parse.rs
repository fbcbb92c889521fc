//! Options by name: read from SQL or JSON, checked as fields, and written into a model file.

use serde_json::Value;

use super::given::Given;
use super::row::{TrainOption, Used};
use super::{InputChoice, OPTIONS, ObjectiveChoice, TrainOptions};
use crate::config::{Cost, KernelKind, name_of};
use crate::error::{Error, Result};

impl TrainOptions {
    /// Reads options by name, as SQL or JSON gives them: numbers, strings, booleans, lists of numbers.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name, with the list of valid ones; [`Error::TrainOption`] for a name given
    /// twice, and for a value of the wrong type or range, with what was expected.
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
        let all: Vec<Given<'_>> = options.iter().map(|(name, value)| Given::new(name.as_ref(), value)).collect();
        for (i, given) in all.iter().enumerate() {
            if all[..i].iter().any(|before| before.name == given.name) {
                return Err(Error::train_option(given.name, "is given twice"));
            }
        }
        let find = |name: &str| all.iter().find(|given| given.name == name);
        // These two decide the values of the options that are left out.
        let mut first = Self::default();
        ["objective", "preset"].into_iter().filter_map(find).try_for_each(|given| first.set(given))?;
        let mut this = first.base()?;
        all.iter().try_for_each(|given| this.set(given))?;
        // A preset's λ is in units of the squared cost and of seven IMQ scales.
        let other_unit = this.cost != Cost::Squared || this.kernel != KernelKind::Imq || find("scales").is_some();
        if find("lambda").is_none() && other_unit {
            this.lambda = None;
        }
        all.iter().try_for_each(|given| this.check_use(TrainOption::find(given.name)?, given.value))?;
        if this.backbone.is_none() && find("embed").is_some() {
            return Err(Error::train_option("embed", "goes with backbone only: it is for the weights of its network"));
        }
        if this.backbone.is_some() && find("input").is_some() && this.input == InputChoice::Image {
            let problem = "is 'image', but the model of a backbone is trained on features: leave input out";
            return Err(Error::train_option("input", problem));
        }
        this.check_together()?;
        Ok(this)
    }

    /// Checks every field as [`Self::try_from_options`] checks the option of its name, for options that were put
    /// together in code. A field whose value is neither the default nor the preset's counts as given.
    ///
    /// # Errors
    /// [`Error::TrainOption`] with the first option that is out of range or of no use to the objective.
    ///
    /// # Example
    /// ```
    /// use wae_core::TrainOptions;
    ///
    /// let options = TrainOptions { learning_rate: f64::NAN, ..TrainOptions::default() };
    /// let error = options.validate().unwrap_err().to_string();
    /// assert_eq!(error, "option 'learning_rate' must be a number above 0 and at most 1, got NaN");
    /// ```
    pub fn validate(&self) -> Result<()> {
        let base = self.base()?;
        let without_preset = Self { objective: self.objective, ..Self::default() };
        let mut read = base.clone();
        for option in OPTIONS {
            for json in option.fields() {
                let value = json(self);
                if !value.is_null() {
                    (option.set)(&mut read, &Given::of_field(option.name, &value))?;
                }
                if value != json(&base) && value != json(&without_preset) {
                    self.check_use(option, &value)?;
                }
            }
        }
        self.check_together()
    }

    /// Reads one option into its field.
    fn set(&mut self, given: &Given<'_>) -> Result<()> {
        (TrainOption::find(given.name)?.set)(self, given)
    }

    /// The options where nothing is given but this objective and this preset.
    fn base(&self) -> Result<Self> {
        match self.preset {
            Some(preset) => preset.options(self.objective),
            None => Ok(Self { objective: self.objective, ..Self::default() }),
        }
    }

    /// Refuses an option that the objective has no use for.
    fn check_use(&self, option: &TrainOption, value: &Value) -> Result<()> {
        if (option.goes_with)(self.objective, value) {
            return Ok(());
        }
        let objective = name_of(&ObjectiveChoice::ALL, self.objective);
        Err(Error::train_option(option.name, format!("does not go with objective '{objective}'")))
    }

    /// The values that a model file holds, of the options that its configuration does not hold.
    pub(crate) fn used(&self) -> Value {
        let resolved = Self {
            adversary_learning_rate: Some(self.adversary_rate()),
            device: Some(self.device.unwrap_or_default()),
            precision: Some(self.precision.unwrap_or_default()),
            ..self.clone()
        };
        let used = OPTIONS.iter().filter(|option| option.used != Used::No);
        used.map(|option| (option.name, (option.json)(&resolved))).collect()
    }
}
