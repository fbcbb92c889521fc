//! Trainings that run in this process: one a model, with its history so far.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};

use datafusion::common::{Result, exec_err};
use wae_core::EpochReport;

use super::lock;

static RUNNING: LazyLock<Mutex<HashMap<PathBuf, Arc<Training>>>> = LazyLock::new(Mutex::default);
/// Told when a training ends.
static ENDED: Condvar = Condvar::new();

/// A training that runs.
#[derive(Debug)]
pub(crate) struct Training {
    history: Mutex<Vec<EpochReport>>,
    cancelled: Arc<AtomicBool>,
}

/// Marks a training as running until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningGuard {
    path: PathBuf,
    training: Arc<Training>,
}

impl RunningGuard {
    /// Claims a model's file for a training that stops once `cancelled` is set.
    ///
    /// Another training of it that was cancelled is waited for: it ends within a batch.
    ///
    /// # Errors
    /// An execution error if a training of it runs already.
    pub(crate) fn try_new(function: &str, name: &str, path: PathBuf, cancelled: Arc<AtomicBool>) -> Result<Self> {
        let mut running = lock(&RUNNING);
        while let Some(other) = running.get(&path) {
            if !other.cancelled.load(Ordering::Relaxed) {
                return exec_err!("{function}: model '{name}' is being trained already");
            }
            running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
        let training = Arc::new(Training { history: Mutex::default(), cancelled });
        running.insert(path.clone(), Arc::clone(&training));
        Ok(Self { path, training })
    }

    /// Adds an epoch to the history.
    pub(crate) fn push(&self, report: EpochReport) {
        lock(&self.training.history).push(report);
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
    let training = lock(&RUNNING).get(path).map(Arc::clone)?;
    let history = lock(&training.history).clone();
    Some(history)
}

/// The key under which a training of a model file is known: its folder is canonical, the file need not exist.
pub(crate) fn key(path: &Path) -> PathBuf {
    let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else { return path.to_owned() };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    dir.canonicalize().map_or_else(|_| path.to_owned(), |dir| dir.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(name: &str, cancelled: &Arc<AtomicBool>) -> Result<RunningGuard> {
        RunningGuard::try_new("wae_train", name, PathBuf::from(name), Arc::clone(cancelled))
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
    fn a_cancelled_training_is_waited_for() {
        let flag = Arc::default();
        let first = claim("waited", &flag).unwrap();
        flag.store(true, Ordering::Relaxed);
        let second = std::thread::spawn(|| claim("waited", &Arc::default()).map(drop));
        drop(first);
        second.join().unwrap().unwrap();
    }
}
