//! Files that are written whole or not at all, and the temporary files that a dead process left.
//!
//! A file of model `m` is written as `.m.XXXXXX.tmp` in the same folder (X: a letter or digit), synced, and renamed.
//! The name says which model the file belongs to, whatever dots are in the model's own name: it ends where the last two
//! begin.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// The end of a temporary file's name, behind its random part.
const SUFFIX: &str = ".tmp";
/// Letters and digits of the random part.
const RANDOM: usize = 6;

/// Reads a file of at most `max` bytes.
pub(super) fn read(path: &Path, max: usize) -> Result<Vec<u8>> {
    let at = |e| Error::io(path, e);
    let mut bytes = Vec::new();
    // The file may grow while it is read: the bound holds for what is read, not for what the folder says.
    let read = File::open(path).map_err(at)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(at)?;
    if read > max {
        let size = fs::metadata(path).map_err(at)?.len();
        return Err(Error::Model(format!("{} has {size} bytes, expected at most {max}", path.display())));
    }
    Ok(bytes)
}

/// Writes a file of a model so that a crash at any moment leaves what was there before, or all of it.
///
/// # Errors
/// Those of writing a temporary file beside it and renaming that.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let prefix = format!(".{}.", model_of(path));
    let mut builder = tempfile::Builder::new();
    let builder = shared(builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM));
    let mut file = builder.tempfile_in(folder)?;
    // Whoever cleans up sees that this process lives. Where files cannot be locked, the lock on the name has to do.
    let _ = file.as_file().try_lock();
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// The model that a file belongs to: `m.safetensors` and `.m.checkpoint` to `m`.
fn model_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match stem.strip_prefix('.').filter(|_| path.extension().is_some_and(|e| e == "checkpoint")) {
        Some(model) => model.to_owned(),
        None => stem.into_owned(),
    }
}

/// Removes the temporary files of model `name` whose writers have died, and says how many there were.
///
/// A living process holds a lock on each of its temporary files until it is renamed, so that these are left. On a file
/// system without locks, all are left.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read, or a file of it not removed.
pub fn remove_temporary_files(folder: &Path, name: &str) -> Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let belongs = entry.file_name().to_str().is_some_and(|file| belongs_to(file, name));
        // A link or a pipe of that name was not written by this crate.
        if !belongs || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        // A file that cannot be locked may have a living writer.
        if !File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => removed += 1,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&path, e)),
        }
    }
    Ok(removed)
}

/// Whether a file of this name is a temporary one of the model `name`.
fn belongs_to(file: &str, name: &str) -> bool {
    let inner = file.strip_prefix('.').and_then(|file| file.strip_suffix(SUFFIX));
    inner.and_then(|inner| inner.rsplit_once('.')).is_some_and(|(model, random)| {
        model == name && random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

/// Temporary files are private; a model is as readable as any file that the user makes, which the umask says.
#[cfg(unix)]
fn shared<'a, 'p, 's>(builder: &'a mut tempfile::Builder<'p, 's>) -> &'a mut tempfile::Builder<'p, 's> {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(std::fs::Permissions::from_mode(0o666))
}

#[cfg(not(unix))]
fn shared<'a, 'p, 's>(builder: &'a mut tempfile::Builder<'p, 's>) -> &'a mut tempfile::Builder<'p, 's> {
    builder
}

/// A rename is durable once its folder is.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_belongs_to_one_model() {
        assert!(belongs_to(".m.a1B2c3.tmp", "m"));
        assert!(belongs_to(".m.v2.a1B2c3.tmp", "m.v2"));
        assert!(!belongs_to(".m.v2.a1B2c3.tmp", "m"), "a model's name may have dots");
        assert!(belongs_to("..m.a1B2c3.tmp", ".m"));
        for other in [".m.checkpoint", ".m.lock", ".m.tmp", ".m.a1B2c.tmp", ".m.a1B2c_.tmp", "m.a1B2c3.tmp"] {
            assert!(!belongs_to(other, "m"), "{other}");
        }
    }

    #[test]
    fn a_file_belongs_to_one_model() {
        for (file, model) in
            [("m.safetensors", "m"), (".m.checkpoint", "m"), (".m.safetensors", ".m"), ("..m.checkpoint", ".m")]
        {
            assert_eq!(model_of(&Path::new("models").join(file)), model);
        }
    }

    #[test]
    fn only_what_dead_processes_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| File::create(dir.path().join(name)).unwrap();
        let alive = make(".m.alive1.tmp");
        alive.lock().unwrap();
        for name in [".m.dead01.tmp", ".m.dead02.tmp", ".other.dead03.tmp", "m.safetensors", ".m.checkpoint"] {
            make(name);
        }
        fs::create_dir(dir.path().join(".m.folder.tmp")).unwrap();
        assert_eq!(remove_temporary_files(dir.path(), "m").unwrap(), 2);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".m.alive1.tmp", ".m.checkpoint", ".m.folder.tmp", ".other.dead03.tmp", "m.safetensors"]);
        drop(alive);
        assert_eq!(remove_temporary_files(dir.path(), "m").unwrap(), 1);
    }
}
