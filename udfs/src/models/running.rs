//! Trainings and calibrations that run in this process: one a model, a training with its history so far.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

use datafusion::common::{Result, exec_err};
use wae_core::EpochReport;

use super::lock;

static RUNNING: LazyLock<Mutex<HashMap<PathBuf, Arc<Running>>>> = LazyLock::new(Mutex::default);
/// Told when one ends.
static ENDED: Condvar = Condvar::new();

/// What is being done to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// It is trained.
    Training,
    /// Its calibration is replaced.
    Calibration,
}

/// A training or calibration that runs.
#[derive(Debug)]
struct Running {
    work: Work,
    history: Mutex<Vec<EpochReport>>,
    cancelled: Arc<AtomicBool>,
}

/// Marks a training or calibration as running until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningGuard {
    path: PathBuf,
    running: Arc<Running>,
}

impl RunningGuard {
    /// Claims a model's file for work that stops once `cancelled` is set.
    ///
    /// Other work on it that was cancelled is waited for: it ends within a batch.
    ///
    /// # Errors
    /// An execution error if other work on it runs already.
    pub(crate) fn try_new(
        function: &str,
        work: Work,
        name: &str,
        path: PathBuf,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self> {
        let mut running = lock(&RUNNING);
        while let Some(other) = running.get(&path) {
            if !other.cancelled.load(Ordering::Relaxed) {
                let done = if other.work == Work::Training { "trained" } else { "calibrated" };
                return exec_err!("{function}: model '{name}' is being {done} already");
            }
            running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        let claim = Arc::new(Running { work, history: Mutex::default(), cancelled });
        running.insert(path.clone(), Arc::clone(&claim));
        Ok(Self { path, running: claim })
    }

    /// Adds an epoch to the history.
    pub(crate) fn push(&self, report: EpochReport) {
        lock(&self.running.history).push(report);
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        lock(&RUNNING).remove(&self.path);
        ENDED.notify_all();
    }
}

/// The history so far of a training that runs, if one does.
pub(crate) fn history(path: &Path) -> Option<Vec<EpochReport>> {
    let running = lock(&RUNNING).get(path).filter(|r| r.work == Work::Training).map(Arc::clone)?;
    let history = lock(&running.history).clone();
    Some(history)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, cancelled: &Arc<AtomicBool>) -> Result<RunningGuard> {
        RunningGuard::try_new("wae_train", Work::Training, name, PathBuf::from(name), Arc::clone(cancelled))
    }

    #[test]
    fn a_second_training_of_one_name_is_refused() {
        let (flag, path) = (Arc::default(), Path::new("refused"));
        let first = claim("refused", &flag).unwrap();
        assert_eq!(history(path).unwrap(), []);
        let error = claim("refused", &flag).unwrap_err().strip_backtrace();
        assert!(error.contains("wae_train: model 'refused' is being trained already"), "{error}");
        drop(first);
        assert_eq!(history(path), None);
        claim("refused", &flag).unwrap();
    }

    #[test]
    fn a_training_and_a_calibration_exclude_each_other() {
        let (flag, path) = (Arc::default(), Path::new("calibrated"));
        let calibrate = || {
            let path = PathBuf::from("calibrated");
            RunningGuard::try_new("wae_calibrate", Work::Calibration, "calibrated", path, Arc::clone(&flag))
        };
        let calibration = calibrate().unwrap();
        assert_eq!(history(path), None, "a calibration has no epochs");
        let error = claim("calibrated", &flag).unwrap_err().strip_backtrace();
        assert!(error.contains("wae_train: model 'calibrated' is being calibrated already"), "{error}");
        drop(calibration);
        let _training = claim("calibrated", &flag).unwrap();
        let error = calibrate().unwrap_err().strip_backtrace();
        assert!(error.contains("wae_calibrate: model 'calibrated' is being trained already"), "{error}");
    }

    #[test]
    fn a_cancelled_training_is_waited_for() {
        let flag = Arc::default();
        let first = claim("waited", &flag).unwrap();
        flag.store(true, Ordering::Relaxed);
        let second = std::thread::spawn(|| claim("waited", &Arc::default()).map(drop));
        drop(first);
        second.join().unwrap().unwrap();
    }
}
