//! How often a training writes a checkpoint.

use std::time::Duration;

use serde_json::Value;

/// When a checkpoint is written, always as an epoch ends: there, and only there, a training can go on exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CheckpointInterval {
    /// Never.
    #[default]
    Never,
    /// After every so many epochs; 0 is never, as in SQL.
    Epochs(usize),
    /// After the first epoch that ends so long after the last checkpoint, or after the first step.
    Time(Duration),
}

impl CheckpointInterval {
    /// The shortest time.
    pub(super) const SHORTEST: Duration = Duration::from_secs(1);

    /// Whether a checkpoint is due after an epoch that ended `since` after the last checkpoint.
    pub fn is_due(self, epoch: usize, since: Duration) -> bool {
        match self {
            Self::Never => false,
            Self::Epochs(every) => every > 0 && epoch.is_multiple_of(every),
            Self::Time(every) => since >= every,
        }
    }

    /// As the option takes it.
    pub(super) fn to_json(self) -> Value {
        match self {
            Self::Never => 0.into(),
            Self::Epochs(every) => every.into(),
            Self::Time(every) => humantime::format_duration(every).to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_by_epochs_or_by_time() {
        let minutes = |m: u64| Duration::from_secs(60 * m);
        assert!(!CheckpointInterval::Never.is_due(1, minutes(1000)));
        let due: Vec<usize> = (1..8).filter(|e| CheckpointInterval::Epochs(3).is_due(*e, minutes(0))).collect();
        assert_eq!(due, [3, 6]);
        let every = CheckpointInterval::Time(minutes(10));
        assert!(!every.is_due(5, minutes(9)) && every.is_due(5, minutes(10)));
        assert_eq!(every.to_json(), "10m");
    }
}
