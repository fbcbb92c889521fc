//! Work on models that runs now: one at a time on each, a training with its history so far.
//!
//! Within this process a table says who works on a file, so that a training can be asked for its history, and one that
//! was cancelled be waited for. Among processes a [`NameLock`] does, which is taken after the entry in the table and
//! let go of before it: whoever has the entry is the only one of this process that asks for the lock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

use datafusion::common::{Result, exec_datafusion_err, exec_err};
use wae_core::EpochReport;

use super::lock;
use super::name_lock::NameLock;
use super::store::StoredFile;

static RUNNING: LazyLock<Mutex<HashMap<PathBuf, Arc<Running>>>> = LazyLock::new(Mutex::default);
/// Told when one ends.
static ENDED: Condvar = Condvar::new();

/// Work on a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// It is trained.
    Training,
    /// Its calibration is replaced.
    Calibration,
    /// It is removed.
    Removal,
    /// It gets another name, or is the one that is to be.
    Renaming,
}

impl Work {
    fn participle(self) -> &'static str {
        match self {
            Self::Training => "trained",
            Self::Calibration => "calibrated",
            Self::Removal => "removed",
            Self::Renaming => "renamed",
        }
    }
}

/// Work that goes on.
#[derive(Debug)]
struct Running {
    work: Work,
    history: Mutex<Vec<EpochReport>>,
    cancelled: Arc<AtomicBool>,
}

/// The sole right to work on a model's file, until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningGuard {
    path: PathBuf,
    running: Arc<Running>,
    lock: Option<NameLock>,
}

impl RunningGuard {
    /// Claims a model's file, whose folder exists, for work that stops once `cancelled` is set.
    ///
    /// Other work on it that was cancelled is waited for: it ends within a batch.
    ///
    /// # Errors
    /// An execution error if other work on it runs already, in this process, or in another where the folder is local:
    /// object stores have no locks.
    pub(crate) fn try_new(
        function: &str,
        work: Work,
        name: &str,
        file: &StoredFile,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self> {
        let path = file.key();
        let mut running = lock(&RUNNING);
        while let Some(other) = running.get(&path) {
            if !other.cancelled.load(Ordering::Relaxed) {
                return exec_err!("{function}: model '{name}' is being {} already", other.work.participle());
            }
            running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        let claim = Arc::new(Running { work, history: Mutex::default(), cancelled });
        running.insert(path.clone(), Arc::clone(&claim));
        drop(running);
        let mut guard = Self { path, running: claim, lock: None };
        // The entry's own path: of two names of one folder, both have one lock.
        if file.local_path().is_some() {
            guard.lock = NameLock::try_new(&guard.path)
                .map_err(|e| exec_datafusion_err!("{function}: cannot lock model '{name}' ({file}): {e}"))?;
            if guard.lock.is_none() {
                return exec_err!(
                    "{function}: model '{name}' is being trained, calibrated, removed or renamed by another process"
                );
            }
        }
        Ok(guard)
    }

    /// Adds an epoch to the history.
    pub(crate) fn push(&self, report: EpochReport) {
        lock(&self.running.history).push(report);
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        // First, so that whoever waits for the entry gets the lock too.
        self.lock = None;
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
    use crate::models::store::ModelStore;

    static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

    fn file(name: &str) -> StoredFile {
        ModelStore::Local(DIR.path().to_owned()).file(format!("{name}.safetensors"))
    }

    fn path(name: &str) -> PathBuf {
        file(name).key()
    }

    fn claim(name: &str, cancelled: &Arc<AtomicBool>) -> Result<RunningGuard> {
        RunningGuard::try_new("wae_train", Work::Training, name, &file(name), Arc::clone(cancelled))
    }

    #[test]
    fn a_second_training_of_one_name_is_refused() {
        let (flag, path) = (Arc::default(), path("refused"));
        let first = claim("refused", &flag).unwrap();
        assert_eq!(history(&path).unwrap(), []);
        let error = claim("refused", &flag).unwrap_err().strip_backtrace();
        assert!(error.contains("wae_train: model 'refused' is being trained already"), "{error}");
        drop(first);
        assert_eq!(history(&path), None);
        claim("refused", &flag).unwrap();
    }

    /// A lock on the file that this process did not enter in its table is another process's.
    #[test]
    fn a_training_in_another_process_is_refused() {
        let held = NameLock::try_new(&path("elsewhere")).unwrap().unwrap();
        let error = claim("elsewhere", &Arc::default()).unwrap_err().strip_backtrace();
        let expected =
            "wae_train: model 'elsewhere' is being trained, calibrated, removed or renamed by another process";
        assert!(error.contains(expected), "{error}");
        assert_eq!(history(&path("elsewhere")), None, "the entry is gone");
        drop(held);
        claim("elsewhere", &Arc::default()).unwrap();
    }

    #[test]
    fn a_training_and_a_calibration_exclude_each_other() {
        let flag = Arc::default();
        let calibrate = || {
            let file = file("calibrated");
            RunningGuard::try_new("wae_calibrate", Work::Calibration, "calibrated", &file, Arc::clone(&flag))
        };
        let calibration = calibrate().unwrap();
        assert_eq!(history(&path("calibrated")), None, "a calibration has no epochs");
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
