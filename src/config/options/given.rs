//! One option as SQL or JSON gives it, read into what it means.

use serde_json::Value;

use super::{CheckpointInterval, NetworkChoice};
use crate::config::bounds;
use crate::device::Device;
use crate::error::{Error, Result};

/// One option as it was given.
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
}

impl Given<'_> {
    fn refuse<T>(&self, expected: impl std::fmt::Display) -> Result<T> {
        Err(Error::train_option(self.name, format!("must be {expected}, got {}", self.value)))
    }

    pub(super) fn integer(&self, min: u64, max: u64) -> Result<u64> {
        match self.value.as_u64() {
            Some(v) if (min..=max).contains(&v) => Ok(v),
            _ => self.refuse(format_args!("an integer between {min} and {max}")),
        }
    }

    pub(super) fn number(&self, expected: &str, valid: impl Fn(f64) -> bool) -> Result<f64> {
        match self.value.as_f64() {
            Some(v) if v.is_finite() && valid(v) => Ok(v),
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
        self.number("a number above 0 and at most 1", |v| v > 0.0 && v <= 1.0)
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

    pub(super) fn device(&self) -> Result<Device> {
        self.value.as_str().and_then(Device::from_name).map_or_else(|| self.refuse(Device::NAMES), Ok)
    }

    pub(super) fn auto<T>(&self, parse: impl Fn(&Self) -> Result<T>) -> Result<Option<T>> {
        if self.value.as_str() == Some("auto") { Ok(None) } else { parse(self).map(Some) }
    }

    pub(super) fn network(&self) -> Result<NetworkChoice> {
        const EXPECTED: &str = "'auto', 'small', 'mnist', 'celeba' or widths such as '32,64,128'";
        let Some(text) = self.value.as_str() else { return self.refuse(EXPECTED) };
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(NetworkChoice::Auto),
            "small" => Ok(NetworkChoice::Small),
            "mnist" => Ok(NetworkChoice::Mnist),
            "celeba" => Ok(NetworkChoice::Celeba),
            list => widths(list).map_or_else(|| self.refuse(EXPECTED), |widths| Ok(NetworkChoice::Widths(widths))),
        }
    }

    /// Widths of layers: `'512,512'`.
    pub(super) fn widths(&self) -> Result<Vec<usize>> {
        let widths = self.value.as_str().and_then(widths);
        widths.map_or_else(|| self.refuse("widths such as '512,512'"), Ok)
    }

    /// One side or two: `64`, `'64'`, `'48x64'` (height × width).
    pub(super) fn sides(&self) -> Result<(usize, usize)> {
        let parse = |text: &str| text.trim().parse::<usize>().ok().filter(|v| (1..=bounds::SIDE).contains(v));
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

/// Widths between commas, each within bounds, and not too many.
fn widths(list: &str) -> Option<Vec<usize>> {
    let width = |text: &str| text.trim().parse().ok().filter(|w| (1..=bounds::WIDTH).contains(w));
    list.split(',').map(width).collect::<Option<Vec<_>>>().filter(|widths| widths.len() <= bounds::LAYERS)
}
