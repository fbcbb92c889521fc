//! All that a name stands for: a model, the checkpoint of a training that was stopped, what dead processes left.

use std::fmt::{self, Display, Formatter};

use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use wae_core::checkpoint::remove_temporary_files;

use super::store::StoredFile;
use super::{checkpoint_file, existing_file, file};
use crate::options::WaeOptions;

/// The kind of a file that a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A model.
    Model,
    /// The checkpoint of a training that was stopped.
    Checkpoint,
}

impl Display for Kind {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Checkpoint => "checkpoint",
        })
    }
}

/// The files of a name.
#[derive(Debug)]
pub(crate) struct Named {
    name: String,
    /// The model's file, whether or not it exists.
    pub(crate) model: StoredFile,
    checkpoint: StoredFile,
}

impl Named {
    /// The files that a name would have.
    ///
    /// # Errors
    /// A plan error for a name that could leave the folder.
    pub(crate) fn try_new(function: &str, name: &str, options: &WaeOptions) -> Result<Self> {
        let model = file(function, name, options)?;
        let checkpoint = checkpoint_file(name, &model);
        Ok(Self { name: name.to_owned(), model, checkpoint })
    }

    /// Those of its files that exist, each with what it is.
    ///
    /// # Errors
    /// An execution error if they cannot be looked up.
    pub(crate) fn existing(&self, function: &str) -> Result<Vec<(Kind, &StoredFile)>> {
        let mut existing = Vec::new();
        for (kind, file) in [(Kind::Model, &self.model), (Kind::Checkpoint, &self.checkpoint)] {
            if file.exists().map_err(|e| failed(function, file, &e))? {
                existing.push((kind, file));
            }
        }
        Ok(existing)
    }

    /// The same where there has to be one.
    ///
    /// # Errors
    /// A plan error that names the models that exist, and those of [`Self::existing`].
    pub(crate) fn required(&self, function: &str, options: &WaeOptions) -> Result<Vec<(Kind, &StoredFile)>> {
        let existing = self.existing(function)?;
        if existing.is_empty() {
            existing_file(function, &self.name, options)?;
        }
        Ok(existing)
    }

    /// The checkpoint's or the model's file under another name.
    pub(crate) fn file(&self, kind: Kind) -> &StoredFile {
        match kind {
            Kind::Model => &self.model,
            Kind::Checkpoint => &self.checkpoint,
        }
    }

    /// Removes the temporary files that dead processes left; whoever asks holds the name's lock.
    ///
    /// # Errors
    /// An execution error if the folder cannot be read, or a file not removed.
    pub(crate) fn remove_leftovers(&self, function: &str) -> Result<()> {
        remove_leftovers(function, &self.name, &self.model)
    }
}

/// Removes the temporary files of a model that dead processes left; whoever asks holds its lock.
///
/// # Errors
/// An execution error if the folder cannot be read, or a file not removed.
pub(crate) fn remove_leftovers(function: &str, name: &str, model: &StoredFile) -> Result<()> {
    let path = model.local_path();
    // An object appears in one step, by the store's own doing.
    let Some(dir) = path.as_ref().and_then(|path| path.parent()) else { return Ok(()) };
    match remove_temporary_files(dir, name).map_err(|e| crate::error::exec_error(function, &e))? {
        0 => {}
        count => log::info!("{function}: removed {count} temporary files of model '{name}'"),
    }
    Ok(())
}

/// Why a file could not be looked up, removed or renamed.
pub(crate) fn failed(function: &str, file: &StoredFile, error: &std::io::Error) -> DataFusionError {
    exec_datafusion_err!("{function}: {file}: {error}")
}
