//! What a training begins from: nothing, another model's weights, or the checkpoint of a training that was stopped.
//!
//! | there is | plain | `resume => true` | `overwrite => true` | both |
//! |---|---|---|---|---|
//! | nothing | begins | begins | begins | begins |
//! | a checkpoint | refused | goes on | begins anew, the checkpoint is removed | goes on |
//! | a model | refused | refused | replaces it | replaces it |
//! | both | refused | refused | begins anew, the checkpoint is removed | goes on, then replaces the model |
//!
//! A checkpoint `.m.checkpoint` lies beside the model `m.safetensors`: hidden, and without a model's suffix, so that no listing
//! shows it and no name finds it.

use std::path::{Path, PathBuf};

use datafusion::common::{Result, exec_datafusion_err, plan_datafusion_err, plan_err};
use wae_core::checkpoint::{Checkpoint, CheckpointInfo};
use wae_core::{Config, Dataset, ImageShape, ModelFile, Trainer};

use super::{NAME, TrainCall};
use crate::error::exec_error;
use crate::models;

/// What a training begins from.
#[derive(Debug)]
pub(super) enum Start {
    /// Initial weights.
    Anew,
    /// The weights of the model of this name.
    Model(String, Box<ModelFile>),
    /// A checkpoint.
    Checkpoint(Box<Checkpoint>),
}

/// `.m.checkpoint` beside `m.safetensors`.
pub(crate) fn checkpoint_path(model: &Path) -> PathBuf {
    model.with_file_name(format!(".{}.checkpoint", model.file_stem().unwrap_or_default().to_string_lossy()))
}

/// Whether there is a checkpoint: a file, not a link to one, since this crate writes no links.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
}

impl TrainCall {
    /// The file of the training's checkpoint.
    pub(super) fn checkpoint(&self) -> PathBuf {
        checkpoint_path(&self.path)
    }

    /// Whether the training goes on from a checkpoint.
    fn resumes(&self) -> bool {
        self.train.resume && is_there(&self.checkpoint())
    }

    /// Refuses what the files there are rule out: a model or a checkpoint that the call does not say what to do with, a
    /// checkpoint of another training, a missing model to begin from.
    pub(super) fn check(&self) -> Result<()> {
        self.check_overwrite()?;
        let name = &self.model;
        if self.resumes() {
            let info = CheckpointInfo::read(self.checkpoint()).map_err(|e| self.unreadable(&e))?;
            return info.check_options(&self.train).map_err(|e| plan_datafusion_err!("{}", self.cannot_resume(&e)));
        }
        if is_there(&self.checkpoint()) && !self.train.overwrite {
            return plan_err!(
                "{NAME}: a training of model '{name}' was stopped and left a checkpoint ({}), expected resume => true to go \
                 on with it, or overwrite => true to begin anew",
                self.checkpoint().display()
            );
        }
        if let Some(init) = &self.train.init {
            models::existing_path(NAME, init, &self.session.model_dir())?;
        }
        Ok(())
    }

    /// Refuses to replace a model without being told to.
    pub(super) fn check_overwrite(&self) -> Result<()> {
        if self.path.exists() && !self.train.overwrite {
            let (name, path) = (&self.model, self.path.display());
            return plan_err!(
                "{NAME}: model '{name}' exists already ({path}), expected another name or overwrite => true"
            );
        }
        Ok(())
    }

    /// Refuses a model to begin from whose architecture is not that of a model for these images.
    pub(super) fn check_init(&self, images: ImageShape) -> Result<()> {
        let Some(init) = self.train.init.as_ref().filter(|_| !self.resumes()) else { return Ok(()) };
        let config = self.train.config(images).map_err(|e| crate::error::plan_error(NAME, &e))?;
        let model = models::load(NAME, init, &self.session)?;
        same_architecture(init, &config, model.wae().config()).map_err(|text| plan_datafusion_err!("{text}"))
    }

    /// Reads what the training begins from.
    pub(super) fn start(&self) -> Result<Start> {
        if self.resumes() {
            let checkpoint = Checkpoint::read(self.checkpoint()).map_err(|e| self.unreadable(&e))?;
            return Ok(Start::Checkpoint(Box::new(checkpoint)));
        }
        let Some(init) = &self.train.init else { return Ok(Start::Anew) };
        let path = models::existing_path(NAME, init, &self.session.model_dir())?;
        let (model, ..) = models::read_file(NAME, init, &path)?;
        Ok(Start::Model(init.clone(), Box::new(model)))
    }

    fn unreadable(&self, error: &wae_core::Error) -> datafusion::common::DataFusionError {
        exec_datafusion_err!(
            "{NAME}: the checkpoint of model '{}' cannot be read ({}): {error}; expected overwrite => true without resume => \
             true, to begin anew",
            self.model,
            self.checkpoint().display()
        )
    }

    fn cannot_resume(&self, error: &wae_core::Error) -> String {
        format!(
            "{NAME}: model '{}' cannot be resumed: {error}. Expected the options and the images that it was begun with, or \
             overwrite => true without resume => true, to begin anew",
            self.model
        )
    }
}

fn same_architecture(name: &str, config: &Config, model: &Config) -> std::result::Result<(), String> {
    config.check_same_architecture(model).map_err(|e| format!("{NAME}: cannot begin from model '{name}': {e}"))
}

impl Start {
    /// Epochs that are done.
    pub(super) fn epochs(&self) -> usize {
        match self {
            Self::Anew | Self::Model(..) => 0,
            Self::Checkpoint(checkpoint) => checkpoint.info().history().len(),
        }
    }

    /// The training on these images.
    pub(super) fn trainer(self, call: &TrainCall, dataset: Dataset) -> Result<Trainer> {
        let options = call.train.clone();
        match self {
            Self::Anew => Trainer::try_new(options, dataset).map_err(|e| exec_error(NAME, &e)),
            Self::Model(name, model) => {
                let config = options.config(dataset.shape());
                let config = config.map_err(|e| exec_error(NAME, &e))?;
                same_architecture(&name, &config, model.config()).map_err(|text| exec_datafusion_err!("{text}"))?;
                Trainer::from_model(options, dataset, &model).map_err(|e| exec_error(NAME, &e))
            }
            Self::Checkpoint(checkpoint) => Trainer::resume(options, dataset, &checkpoint)
                .map_err(|e| exec_datafusion_err!("{}", call.cannot_resume(&e))),
        }
    }
}
