//! One value of an option, as SQL or JSON gives it or as a field holds it, and its reading.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

use serde_json::{Number, Value};

use super::choices::DENSE;
use super::{BackboneChoice, CheckpointInterval, NetworkChoice};
use crate::config::{ScoreScale, bounds};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::AxisOrder;

/// The value of an option that the image, the objective or another option decides.
const AUTO: &str = "auto";

/// A number as JSON, or as text if JSON does not have it.
pub(super) fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// A value, or `auto` for none.
pub(super) fn or_auto(value: Option<impl Into<Value>>) -> Value {
    value.map_or_else(|| AUTO.into(), Into::into)
}

/// Height and width as an option takes them: `48x64`.
pub(super) fn sides_text((height, width): (usize, usize)) -> String {
    format!("{height}x{width}")
}

/// One option and its value.
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
    /// The value as an error shows it.
    shown: &'a dyn Display,
}

impl<'a> Given<'a> {
    /// An option as SQL or JSON gives it.
    pub(super) fn new(name: &'a str, value: &'a Value) -> Self {
        Self { name, value, shown: value }
    }

    /// An option as a field holds it; a number that JSON does not have is shown without the quotes of [`number`].
    pub(super) fn of_field(name: &'a str, value: &'a Value) -> Self {
        let shown: &dyn Display = match value {
            Value::String(text) if matches!(text.as_str(), "NaN" | "inf" | "-inf") => text,
            value => value,
        };
        Self { name, value, shown }
    }

    /// The value as text; the items of a list with commas between them.
    fn text(&self) -> String {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match self.value {
            Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(","),
            value => text(value),
        }
    }

    fn refuse<T>(&self, expected: impl Display) -> Result<T> {
        Err(Error::train_option(self.name, format!("must be {expected}, got {}", self.shown)))
    }

    pub(super) fn integer(&self, min: u64, max: u64) -> Result<u64> {
        match self.value.as_u64() {
            Some(v) if (min..=max).contains(&v) => Ok(v),
            _ => self.refuse(format_args!("an integer between {min} and {max}")),
        }
    }

    pub(super) fn count(&self, min: usize, max: usize) -> Result<usize> {
        self.integer(min as u64, max as u64).map(|v| v as usize)
    }

    pub(super) fn number(&self, expected: &str, range: impl RangeBounds<f64>) -> Result<f64> {
        match self.value.as_f64() {
            Some(v) if v.is_finite() && range.contains(&v) => Ok(v),
            _ => self.refuse(expected),
        }
    }

    /// A list of positive numbers: a JSON array, one number, or a string such as `'0.5, 1, 2'`.
    pub(super) fn numbers(&self) -> Result<Vec<f64>> {
        let numbers: Option<Vec<f64>> = match self.value {
            Value::Array(items) => items.iter().map(Value::as_f64).collect(),
            Value::String(text) => text.split(',').map(|t| t.trim().parse().ok()).collect(),
            other => other.as_f64().map(|v| vec![v]),
        };
        match numbers {
            Some(v) if !v.is_empty() && v.iter().all(|s| bounds::SCALE.contains(s)) => Ok(v),
            _ => self.refuse("a list of numbers from 1e-6 to 1e6, such as '0.5, 1, 2'"),
        }
    }

    pub(super) fn learning_rate(&self) -> Result<f64> {
        self.number("a number above 0 and at most 1", (Bound::Excluded(0.0), Bound::Included(1.0)))
    }

    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().map_or_else(|| self.refuse("true or false"), Ok)
    }

    /// A number of epochs, 0 for never, or a time in words.
    pub(super) fn interval(&self) -> Result<CheckpointInterval> {
        let time = self.value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        match (self.value.as_u64(), time) {
            (Some(0), _) => Ok(CheckpointInterval::Never),
            (Some(epochs @ 1..=100_000), _) => Ok(CheckpointInterval::Epochs(epochs as usize)),
            (_, Some(time)) if time >= CheckpointInterval::SHORTEST => Ok(CheckpointInterval::Time(time)),
            _ => self.refuse("a number of epochs from 0 to 100000, or a time of a second or more such as '10 minutes'"),
        }
    }

    /// The name of a model; the model store knows which names there can be.
    pub(super) fn model(&self) -> Result<String> {
        match self.value.as_str().filter(|name| !name.is_empty()) {
            Some(name) => Ok(name.to_owned()),
            None => self.refuse("the name of a model"),
        }
    }

    /// The path of a pretrained network; who reads it knows which paths there can be.
    pub(super) fn weights(&self) -> Result<BackboneChoice> {
        let name = self.value.as_str().filter(|name| !name.is_empty());
        name.map_or_else(
            || self.refuse("a folder or a .safetensors file of weights"),
            |name| Ok(BackboneChoice::named(name)),
        )
    }

    pub(super) fn layer(&self) -> Result<String> {
        let name = self.value.as_str().filter(|name| !name.trim().is_empty());
        name.map_or_else(
            || self.refuse("a layer, or several joined by '+', such as 'layer2+layer3'"),
            |name| Ok(name.to_owned()),
        )
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T> {
        let text = self.value.as_str().map(str::to_ascii_lowercase);
        match choices.iter().find(|(name, _)| Some(*name) == text.as_deref()) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
                self.refuse(names.join(" or "))
            }
        }
    }

    /// Choices, each at most once: `'flip,shift'` or `['flip', 'shift']`.
    pub(super) fn choices<T: Copy>(&self, choices: &[(&str, T)]) -> Result<Vec<T>> {
        let text = self.text().to_ascii_lowercase();
        let given: Vec<&str> = text.split(',').map(str::trim).collect();
        let chosen: Vec<T> =
            choices.iter().filter(|(name, _)| given.contains(name)).map(|(_, choice)| *choice).collect();
        if chosen.len() == given.len() {
            return Ok(chosen);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.refuse(format_args!("one or more of '{}', each once, such as '{}'", names.join("', '"), names.join(",")))
    }

    pub(super) fn axis_order(&self) -> Result<AxisOrder> {
        self.value.as_str().and_then(|text| text.parse().ok()).map_or_else(|| self.refuse("'HWC' or 'CHW'"), Ok)
    }

    pub(super) fn device(&self) -> Result<Device> {
        self.value.as_str().and_then(Device::from_name).map_or_else(|| self.refuse(Device::NAMES), Ok)
    }

    /// `None` for `'auto'`.
    pub(super) fn auto<T>(&self, parse: impl Fn(&Self) -> Result<T>) -> Result<Option<T>> {
        if self.value.as_str() == Some(AUTO) { Ok(None) } else { parse(self).map(Some) }
    }

    pub(super) fn network(&self) -> Result<NetworkChoice> {
        const EXPECTED: &str = "'auto', 'small', 'mnist', 'celeba', widths such as '32,64,128', or dense layers such as \
            'dense:256,128'";
        let text = self.text();
        let named = NetworkChoice::NAMED.into_iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        let choice = named.map(|(_, choice)| choice).or_else(|| match text.split_at_checked(DENSE.len()) {
            Some((kind, list)) if kind.eq_ignore_ascii_case(DENSE) => widths(list).map(NetworkChoice::Dense),
            _ => widths(&text).map(NetworkChoice::Widths),
        });
        choice.map_or_else(|| self.refuse(EXPECTED), Ok)
    }

    /// Widths of layers: `'512,512'` or `[512, 512]`.
    pub(super) fn widths(&self) -> Result<Vec<usize>> {
        widths(&self.text()).map_or_else(|| self.refuse("widths such as '512,512'"), Ok)
    }

    /// Scales of the anomaly map: `'16,mean,whole'`, `[16, 4]`, `16`.
    pub(super) fn score_scales(&self) -> Result<Vec<ScoreScale>> {
        let scales: Option<Vec<ScoreScale>> = self.text().split(',').map(ScoreScale::parse).collect();
        match scales {
            Some(scales) if ScoreScale::check(&scales).is_ok() => Ok(scales),
            _ => self.refuse(
                "'auto', or at most 8 different scales, whole numbers from 1 to 1024, 'mean' and 'whole', such as \
                 '16,mean,whole'",
            ),
        }
    }

    /// One side or two: `64`, `'64'`, `'48x64'`, `[48, 64]` (height × width).
    pub(super) fn sides(&self) -> Result<(usize, usize)> {
        let parse = |text: &str| text.trim().parse::<usize>().ok().filter(|v| (1..=bounds::SIDE).contains(v));
        let sides = match self.value {
            Value::String(text) => match text.split_once(['x', 'X', '×']) {
                Some((h, w)) => parse(h).zip(parse(w)),
                None => parse(text).map(|s| (s, s)),
            },
            Value::Array(sides) => match sides.as_slice() {
                [h, w] => parse(&h.to_string()).zip(parse(&w.to_string())),
                _ => None,
            },
            other => parse(&other.to_string()).map(|s| (s, s)),
        };
        sides.map_or_else(|| self.refuse("a side such as 64, or height and width such as '48x64'"), Ok)
    }
}

/// Widths between commas, each within bounds, and not too many.
fn widths(list: &str) -> Option<Vec<usize>> {
    let width = |text: &str| text.trim().parse().ok().filter(|w| (1..=bounds::WIDTH).contains(w));
    list.split(',').map(width).collect::<Option<Vec<_>>>().filter(|widths| widths.len() <= bounds::LAYERS)
}
