//! The scores of an image, and the scales of its anomaly map.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name_of;
use crate::error::{Error, Result};

/// The score of a row: higher is stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// The reconstruction cost, whichever the model was trained with.
    #[default]
    Cost,
    /// The Mahalanobis distance of the code from the training codes.
    LatentDistance,
    /// The strangest place of the anomaly map ([`crate::calibrate::AnomalyStatistics`]). In a file of format `wae/1`,
    /// the structural cost of the reconstruction, Σ (x − y)² + ½ DSSIM, whichever cost the model was trained with.
    AnomalyScore,
}

impl Score {
    /// Every score under its name, as SQL's `score` takes it.
    pub const ALL: [(&'static str, Self); 3] =
        [("cost", Self::Cost), ("latent_distance", Self::LatentDistance), ("anomaly_score", Self::AnomalyScore)];

    /// The score's name.
    pub fn name(self) -> &'static str {
        name_of(&Self::ALL, self)
    }

    /// Whether it is the default, which a configuration leaves out.
    pub(super) fn is_cost(&self) -> bool {
        *self == Self::Cost
    }
}

/// A scale at which an anomaly map looks for strange places; as JSON, a number, `"mean"` or `"whole"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum ScoreScale {
    /// Each place with those around it: smoothed with a standard deviation of the image's side divided by this number.
    Part(usize),
    /// All places together, by their mean: strange a little everywhere.
    Mean,
    /// All places together, by their 4-norm: strange at many places.
    Whole,
}

impl ScoreScale {
    /// The scales of images: a strange part of a sixteenth of the side, many strange places, or all of them a little.
    pub const OF_IMAGES: [Self; 3] = [Self::Part(16), Self::Mean, Self::Whole];
    /// The scale of features, whose places are patches already.
    pub const OF_FEATURES: [Self; 1] = [Self::Part(16)];
    /// The most scales of a map.
    const MOST: usize = 8;
    /// The largest divisor of the side.
    const LARGEST: usize = 1024;
    const MEAN: &'static str = "mean";
    const WHOLE: &'static str = "whole";

    /// Whether it looks at parts of an image, and not at all places together.
    pub(crate) fn is_part(self) -> bool {
        matches!(self, Self::Part(_))
    }

    /// The scale of a text: a number from 1 to 1024, `mean` or `whole`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            text if text.eq_ignore_ascii_case(Self::MEAN) => Some(Self::Mean),
            text if text.eq_ignore_ascii_case(Self::WHOLE) => Some(Self::Whole),
            number => number.parse().ok().filter(|n| (1..=Self::LARGEST).contains(n)).map(Self::Part),
        }
    }

    /// Refuses more scales than a map has, and one that is there twice.
    pub(super) fn check(scales: &[Self]) -> Result<()> {
        if scales.len() > Self::MOST {
            return Err(Error::Config(format!(
                "score_scales has {} scales, expected at most {}",
                scales.len(),
                Self::MOST
            )));
        }
        match scales.iter().enumerate().find(|(i, scale)| scales[..*i].contains(scale)) {
            Some((_, scale)) => Err(Error::Config(format!("score_scales has the scale {scale} twice"))),
            None => Ok(()),
        }
    }

    /// Scales as an option takes them: `16,mean,whole`.
    pub(super) fn text(scales: &[Self]) -> String {
        scales.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl std::fmt::Display for ScoreScale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Part(divisor) => divisor.fmt(f),
            Self::Mean => Self::MEAN.fmt(f),
            Self::Whole => Self::WHOLE.fmt(f),
        }
    }
}

impl TryFrom<Value> for ScoreScale {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let largest = Self::LARGEST;
        Self::parse(&text).ok_or_else(|| {
            Error::Config(format!(
                "a scale of score_scales must be a number from 1 to {largest}, 'mean' or 'whole', got {value}"
            ))
        })
    }
}

impl From<ScoreScale> for Value {
    fn from(scale: ScoreScale) -> Self {
        match scale {
            ScoreScale::Part(divisor) => divisor.into(),
            ScoreScale::Mean => ScoreScale::MEAN.into(),
            ScoreScale::Whole => ScoreScale::WHOLE.into(),
        }
    }
}
