//! A row of the table of options, and how its documentation shows a default.

use serde_json::Value;

use super::given::Given;
use super::{ObjectiveChoice, TrainOptions};
use crate::error::Result;

/// An option of a training, by the name that SQL and JSON give it.
#[derive(Debug, Clone, Copy)]
pub struct TrainOption {
    /// Its name.
    pub name: &'static str,
    /// Its meaning and the values that it takes, in Markdown.
    pub documentation: &'static str,
    /// Reads a value into its field, or says what is allowed.
    pub(super) set: fn(&mut TrainOptions, &Given<'_>) -> Result<()>,
    /// The value of its field as `set` takes it; null for none.
    pub(super) json: Json,
    /// The value of its second field, if it has two.
    pub(super) second: Option<Json>,
    /// Whether an objective has a use for a value that is given.
    pub(super) goes_with: fn(ObjectiveChoice, &Value) -> bool,
    /// Its place among the used options of a model file.
    pub(super) used: Used,
    /// Its places in the JSON of a configuration, each with the name of a difference there.
    pub(crate) config: &'static [(&'static str, &'static str)],
    /// Whether it decides which images are trained on, and in which order.
    pub(crate) of_images: bool,
}

/// The value of a field as JSON.
pub(super) type Json = fn(&TrainOptions) -> Value;

/// The place of an option in a model file, and in the comparison of a resumed training with its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Used {
    /// Not held: the configuration has it, or it leaves no trace in a model.
    No,
    /// Held, and a training goes on with the same value only.
    Fixed,
    /// Held, and a training may go on with another value.
    Changeable,
}

impl TrainOption {
    /// A row without a name, for the fields that most rows share.
    pub(super) const NEW: Self = Self {
        name: "",
        documentation: "",
        set: |_, _| Ok(()),
        json: |_| Value::Null,
        second: None,
        goes_with: |_, _| true,
        used: Used::No,
        config: &[],
        of_images: false,
    };
    /// The same for an option that a model file holds and a resumed training keeps.
    pub(super) const FIXED: Self = Self { used: Used::Fixed, ..Self::NEW };
    /// The same for an option that a model file holds and a resumed training may change.
    pub(super) const CHANGEABLE: Self = Self { used: Used::Changeable, ..Self::NEW };

    /// The value where the option is left out, as SQL writes it; `None` if that is no value.
    ///
    /// # Example
    /// ```
    /// use wae_core::config::TrainOption;
    ///
    /// assert_eq!(TrainOption::find("schedule")?.default_sql().as_deref(), Some("'step'"));
    /// assert_eq!(TrainOption::find("init")?.default_sql(), None);
    /// # Ok::<(), wae_core::Error>(())
    /// ```
    pub fn default_sql(&self) -> Option<String> {
        let value = (self.json)(&TrainOptions::default());
        (!value.is_null()).then(|| sql(&value))
    }

    /// Whether the option takes a value, whatever the others are.
    ///
    /// # Example
    /// ```
    /// use wae_core::config::TrainOption;
    ///
    /// let epochs = TrainOption::find("epochs")?;
    /// assert!(epochs.takes(&20.into()) && !epochs.takes(&"20".into()));
    /// # Ok::<(), wae_core::Error>(())
    /// ```
    pub fn takes(&self, value: &Value) -> bool {
        (self.set)(&mut TrainOptions::default(), &Given::new(self.name, value)).is_ok()
    }

    /// Whether a resumed training with these options must have the used value of the checkpoint.
    pub(crate) fn is_compared(&self, options: &TrainOptions) -> bool {
        self.used != Used::Changeable && (self.goes_with)(options.objective, &Value::Null)
    }

    /// The fields of the option as JSON: one, or two.
    pub(super) fn fields(&self) -> impl Iterator<Item = Json> {
        [self.json].into_iter().chain(self.second)
    }
}

fn sql(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        Value::Array(items) => {
            let item = |item: &Value| item.as_f64().map_or_else(|| sql(item), |number| number.to_string());
            format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}
