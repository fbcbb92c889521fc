//! Comparison of a training with a checkpoint: each option and image set that differs is named.

use std::collections::BTreeSet;

use serde_json::Value;

use super::CheckpointInfo;
use crate::config::{Config, InputChoice, OPTIONS, Schedule, TrainOption, TrainOptions};
use crate::dataset::Fingerprint;
use crate::error::{Error, Result};

/// The value of a configuration's JSON that no option says.
const IMAGE: (&str, &str) = ("/image", "the images' shape");
const OBJECTIVE: &str = "/objective/kind";
/// Parts of a configuration's JSON, in the order in which a message names their differences; within a part, the order
/// is that of the table of options.
const ORDER: [&str; 12] = [
    "/image",
    "/preprocess/crop",
    "/preprocess",
    "/backbone",
    "/latent_dim",
    "/network",
    "/encoder",
    "/prior",
    "/cost",
    OBJECTIVE,
    "/objective/lambda",
    "/objective",
];

/// An option that has another value than the checkpoint's.
struct Difference {
    option: String,
    text: String,
}

impl CheckpointInfo {
    /// Refuses options with which the training would not be the checkpoint's, on images of the checkpoint's shape.
    ///
    /// Another number of epochs is accepted where the epochs done would have had the same learning rates: always under
    /// a schedule that does not depend on it, and before the first decay of `step`.
    ///
    /// # Errors
    /// [`Error::Config`], naming each option that differs with both values.
    pub fn check_options(&self, options: &TrainOptions) -> Result<()> {
        // Of another kind of input, the shapes are not comparable.
        let same_input = (options.model_input() == InputChoice::Features) == self.config.input().is_some();
        let rows = self.config.row_shape();
        let image = if same_input { self.config.image() } else { rows };
        let source = if same_input { self.config.source() } else { rows };
        self.check(options, &options.config_of(image, source)?, None)
    }

    /// As [`Self::check_options`], with the configuration for the images at hand, and with their fingerprint if it is
    /// known.
    pub(crate) fn check(&self, options: &TrainOptions, config: &Config, data: Option<&Fingerprint>) -> Result<()> {
        let mut differences = self.differences(options, config);
        differences.extend(self.other_epochs(options));
        let of_images = |d: &Difference| TrainOption::find(&d.option).is_ok_and(|option| option.of_images);
        let same_order = !differences.iter().any(of_images);
        differences.extend(data.filter(|_| same_order).and_then(|data| self.other_images(data)));
        if differences.is_empty() {
            return Ok(());
        }
        let done = self.history.len();
        let epochs = self.epochs();
        let differences: Vec<_> = differences.into_iter().map(|d| d.text).collect();
        let message =
            format!("its checkpoint (epoch {done} of {epochs}) is of another training: {}", differences.join("; "));
        Err(Error::Config(message))
    }

    /// The warning for a training that goes on with other kernels than the checkpoint's: on another device or in
    /// another precision.
    pub(crate) fn other_kernels(&self, kernels: &str) -> Option<String> {
        let was = &self.state.kernels;
        (was != kernels).then(|| {
            format!(
                "the checkpoint was computed by '{was}', and the training goes on by '{kernels}': its results will be near those of a \
                 training that had not stopped, and not the same"
            )
        })
    }

    fn differences(&self, options: &TrainOptions, config: &Config) -> Vec<Difference> {
        let json = |config: &Config| serde_json::to_value(config).unwrap_or_default();
        let was = json(&self.config);
        let is = json(config);
        let same_objective = was.pointer(OBJECTIVE) == is.pointer(OBJECTIVE);
        let of_config = places().into_iter().filter(|(pointer, _)| {
            // A part that another objective does not have is no difference of its own.
            same_objective || *pointer == OBJECTIVE || !pointer.starts_with("/objective/")
        });
        let of_config =
            of_config.filter_map(|(pointer, option)| difference(option, was.pointer(pointer), is.pointer(pointer)));
        let used = options.used();
        let names: BTreeSet<&String> =
            [&self.state.options, &used].into_iter().filter_map(Value::as_object).flat_map(|o| o.keys()).collect();
        // The file of another version may have an option that this one does not.
        let of_options = names.into_iter().filter(|name| {
            let option = TrainOption::find(name).ok();
            option.is_none_or(|option| option.is_compared(options))
        });
        let of_options = of_options.filter_map(|name| difference(name, self.state.options.get(name), used.get(name)));
        of_config.chain(of_options).collect()
    }

    /// Another number of epochs, if it would have changed the epochs that are done.
    fn other_epochs(&self, options: &TrainOptions) -> Option<Difference> {
        let was = self.epochs();
        let is = options.epochs;
        let done = self.history.len();
        let text = |why: &str| {
            let text = format!("epochs was {was}, is {is}, {why}");
            Some(Difference { option: "epochs".to_owned(), text })
        };
        if is < done {
            return text(&format!("fewer than the {done} that are done"));
        }
        if is as u64 == was || !matches!(options.schedule, Schedule::Step | Schedule::Smooth) {
            return None;
        }
        let losses: Vec<f64> = self.history.iter().map(|report| report.loss).collect();
        let rate = |i: usize| options.learning_rate * options.schedule.factor(&losses[..i], is);
        let same = self.history.iter().enumerate().all(|(i, report)| report.learning_rate == rate(i));
        if same { None } else { text("with which the epochs done would have had other learning rates") }
    }

    fn other_images(&self, data: &Fingerprint) -> Option<Difference> {
        let was = &self.state.data;
        if was == data {
            return None;
        }
        let text = if (was.rows, was.held_out) == (data.rows, data.held_out) {
            format!("the {} images are not those that it was trained on", data.rows)
        } else {
            format!("it was trained on {} images, these are {}", was.rows, data.rows)
        };
        Some(Difference { option: "source".to_owned(), text })
    }
}

/// The places in a configuration's JSON, each with the name of a difference there.
fn places() -> Vec<(&'static str, &'static str)> {
    let of_options = OPTIONS.iter().flat_map(|option| option.config.iter().copied());
    let mut places: Vec<_> = [IMAGE].into_iter().chain(of_options).collect();
    let rank = |place: &str| ORDER.iter().position(|part| place.starts_with(part)).unwrap_or(ORDER.len());
    places.sort_by_key(|(place, _)| rank(place));
    places
}

fn difference(option: &str, was: Option<&Value>, is: Option<&Value>) -> Option<Difference> {
    let text = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => format!("'{text}'"),
        Some(value) => value.to_string(),
    };
    let was = text(was);
    let is = text(is);
    (was != is).then(|| Difference { option: option.to_owned(), text: format!("{option} was {was}, is {is}") })
}
