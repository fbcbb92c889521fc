//! A lock on a model's name that holds among processes, and that the system releases when its holder dies.
//!
//! It is an advisory lock on the empty file `.<model>.lock` beside the model. Whoever lets go removes the file while it
//! still holds the lock; whoever gets a lock checks that the file it has locked is still the one of that name, and
//! opens it anew if it is not. So two processes never hold locks on two files of one name, and no file is left but by a
//! crash, whose file the next holder takes over.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A lock on a model's name, held until it is dropped.
#[derive(Debug)]
pub(crate) struct NameLock {
    /// Its lock ends as it is closed.
    _file: File,
    path: PathBuf,
}

impl NameLock {
    /// The lock of the model whose file is `model`; `None` where another process holds it.
    ///
    /// On a file system that has no locks, none is held, and a warning says so.
    pub(crate) fn try_new(model: &Path) -> io::Result<Option<Self>> {
        let path = lock_path(model);
        loop {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(e)) if has_no_locks(&e) => {
                    log::warn!("{} cannot be locked ({e}): do not train this model in two processes", path.display());
                }
                Err(TryLockError::Error(e)) => return Err(e),
            }
            if is_at(&file, &path)? {
                return Ok(Some(Self { _file: file, path }));
            }
        }
    }
}

/// Whether an error says that the file system has no locks: some network file systems answer ENOLCK, which has no kind.
fn has_no_locks(error: &io::Error) -> bool {
    const ENOLCK: i32 = 37;
    error.kind() == ErrorKind::Unsupported || (cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOLCK))
}

impl Drop for NameLock {
    fn drop(&mut self) {
        if !CAN_TELL {
            return;
        }
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => log::warn!("{}: {e}", self.path.display()),
            _ => {}
        }
    }
}

/// `.<model>.lock` beside `<model>.safetensors`.
fn lock_path(model: &Path) -> PathBuf {
    model.with_file_name(format!(".{}.lock", model.file_stem().unwrap_or_default().to_string_lossy()))
}

/// Whether two files can be told apart: where not, lock files stay, so that a name has one for ever.
const CAN_TELL: bool = cfg!(unix);

/// Whether an open file is still the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_holds_it_at_a_time_and_no_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("m.v2.safetensors");
        let first = NameLock::try_new(&model).unwrap().unwrap();
        assert!(dir.path().join(".m.v2.lock").is_file());
        assert!(NameLock::try_new(&model).unwrap().is_none());
        let other = NameLock::try_new(&dir.path().join("m.safetensors")).unwrap();
        assert!(other.is_some(), "another name");
        drop((first, other));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(NameLock::try_new(&model).unwrap().is_some());
    }

    /// A crash leaves an empty file that nobody holds.
    #[test]
    fn the_file_of_a_dead_holder_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".m.lock"), "").unwrap();
        assert!(NameLock::try_new(&dir.path().join("m.safetensors")).unwrap().is_some());
    }

    /// The file of a lock is removed while others open it: those that got hold of the old file must not count it as
    /// theirs.
    #[test]
    fn removal_and_opening_do_not_race() {
        let dir = tempfile::tempdir().unwrap();
        let (model, holders) = (dir.path().join("m.safetensors"), AtomicUsize::new(0));
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                (0..2000)
                    .filter(|_| {
                        NameLock::try_new(&model).unwrap().is_some_and(|lock| {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock of one name");
                            std::thread::yield_now();
                            holders.fetch_sub(1, Ordering::SeqCst);
                            drop(lock);
                            true
                        })
                    })
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(taken > 0, "{taken} of 8000");
    }
}
