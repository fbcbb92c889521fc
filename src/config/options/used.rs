//! What a model file says of the options it was trained with.

use serde_json::{Value, json};

use super::{LambdaSchedule, NetworkChoice, Preset, Schedule, TrainOptions};

impl TrainOptions {
    /// The value used for each option that the configuration does not hold. `resume` and `overwrite` say what becomes of files
    /// and leave no trace in the model: a training that was resumed gives the file of one that was not.
    pub(crate) fn used(&self) -> Value {
        let network = match &self.network {
            NetworkChoice::Auto => "auto".to_owned(),
            NetworkChoice::Small => "small".to_owned(),
            NetworkChoice::Mnist => "mnist".to_owned(),
            NetworkChoice::Celeba => "celeba".to_owned(),
            NetworkChoice::Widths(widths) => widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        json!({
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "adversary_learning_rate": self.adversary_rate(),
            "schedule": name(&Schedule::ALL, self.schedule),
            "lambda_schedule": name(&LambdaSchedule::ALL, self.lambda_schedule),
            "network": network,
            "log_variance_penalty": self.log_variance_penalty,
            "noise": self.noise,
            "pretrain": self.pretrain,
            "preset": self.preset.map(|preset| name(&Preset::ALL, preset)),
            "init": self.init,
            "checkpoint_every": self.checkpoint_every.to_json(),
            "holdout": self.holdout,
            "seed": self.seed,
            "device": self.device.unwrap_or_default().to_string(),
            "precision": self.precision.unwrap_or_default().name(),
        })
    }
}

/// The name of a value among all there are.
pub(super) fn name<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().find(|(_, other)| *other == value).map_or("", |(name, _)| name)
}
