//! The start of a training: initial weights, another model's weights, or the checkpoint of a training that was stopped.
//!
//! | there is | plain | `resume => true` | `overwrite => true` | both |
//! |---|---|---|---|---|
//! | nothing | begins | begins | begins | begins |
//! | a checkpoint | refused | goes on | begins anew, the checkpoint is removed | goes on |
//! | a model | refused | refused | replaces it | replaces it |
//! | both | refused | refused | begins anew, the checkpoint is removed | goes on, then replaces the model |
//!
//! Planning looks for both, and the running query looks again.

use std::fmt::Display;

use datafusion::common::{DataFusionError, Result, exec_datafusion_err, plan_datafusion_err, plan_err};
use wae_core::checkpoint::{Checkpoint, CheckpointInfo};
use wae_core::{Config, Dataset, ImageShape, ModelFile, Trainer};

use super::{NAME, TrainCall};
use crate::error::{exec_error, plan_error};
use crate::models;
use crate::models::store::StoredFile;

/// How many times as large as a model a checkpoint may be: weights, two moments each, and the epochs.
const CHECKPOINT_SIZE: usize = 4;

/// The weights that a training begins with.
#[derive(Debug)]
pub(super) enum Start {
    /// Initial weights.
    Anew,
    /// The weights of the model of this name.
    Model(String, Box<ModelFile>),
    /// A checkpoint.
    Checkpoint(Box<Checkpoint>),
}

impl TrainCall {
    /// The file of the training's checkpoint.
    pub(super) fn checkpoint(&self) -> StoredFile {
        models::checkpoint_file(&self.model, &self.file)
    }

    /// Whether there is a checkpoint.
    fn is_stopped(&self) -> Result<bool> {
        let file = self.checkpoint();
        file.exists().map_err(|e| plan_datafusion_err!("{NAME}: model '{}': {file}: {e}", self.model))
    }

    /// Refuses a call that the files in the model folder rule out: a model or a checkpoint is there and no option says
    /// what becomes of it, the checkpoint is of another training, or the model to begin from is missing.
    pub(super) fn check(&self) -> Result<()> {
        self.check_overwrite()?;
        if self.is_stopped()? {
            if self.train.resume {
                let checked = self.read_info()?.check_options(&self.train);
                return checked.map_err(|e| plan_datafusion_err!("{}", self.cannot_resume(&e)));
            }
            if !self.train.overwrite {
                let name = &self.model;
                let file = self.checkpoint();
                return plan_err!(
                    "{NAME}: a training of model '{name}' was stopped and left a checkpoint ({file}), expected resume => true \
                     to go on with it, or overwrite => true to begin anew"
                );
            }
        }
        match &self.train.init {
            Some(init) => models::existing_file(NAME, init, &self.session).map(drop),
            None => Ok(()),
        }
    }

    /// Refuses to replace a model unless the call says `overwrite => true`.
    pub(super) fn check_overwrite(&self) -> Result<()> {
        let name = &self.model;
        let file = &self.file;
        match file.exists() {
            Ok(true) if !self.train.overwrite => {
                plan_err!("{NAME}: model '{name}' exists already ({file}), expected another name or overwrite => true")
            }
            Ok(_) => Ok(()),
            Err(e) => plan_err!("{NAME}: model '{name}': {file}: {e}"),
        }
    }

    /// Refuses to begin from a model whose architecture does not fit the options and these images.
    pub(super) fn check_init(&self, images: ImageShape) -> Result<()> {
        let Some(init) = &self.train.init else { return Ok(()) };
        if self.train.resume && self.is_stopped()? {
            return Ok(());
        }
        let model = models::load(NAME, init, &self.session)?;
        let config = self.train.config_from(images, model.wae().config()).map_err(|e| plan_error(NAME, &e))?;
        same_architecture(init, &config, model.wae().config()).map_err(|text| plan_datafusion_err!("{text}"))
    }

    /// Reads the checkpoint or the model that the training begins from.
    pub(super) fn start(&self) -> Result<Start> {
        if self.train.resume && self.is_stopped()? {
            return Ok(Start::Checkpoint(Box::new(self.read_checkpoint()?)));
        }
        let Some(init) = &self.train.init else { return Ok(Start::Anew) };
        let file = models::existing_file(NAME, init, &self.session)?;
        let (model, ..) = models::read_file(NAME, init, &file, &self.session)?;
        Ok(Start::Model(init.clone(), Box::new(model)))
    }

    fn read_checkpoint(&self) -> Result<Checkpoint> {
        let limit = self.session.max_model_bytes().saturating_mul(CHECKPOINT_SIZE);
        let (bytes, _) = self.checkpoint().read(limit).map_err(|e| self.unreadable(&e))?;
        Checkpoint::from_bytes(&bytes).map_err(|e| self.unreadable(&e))
    }

    /// The head of the checkpoint; of a local file, the tensors are not read.
    fn read_info(&self) -> Result<CheckpointInfo> {
        let file = self.checkpoint();
        match file.local_path() {
            Some(path) => {
                // Refuses a file that is not a regular one: opening a pipe would wait.
                file.stamp().map_err(|e| self.unreadable(&e))?;
                CheckpointInfo::read(path).map_err(|e| self.unreadable(&e))
            }
            None => Ok(self.read_checkpoint()?.info().clone()),
        }
    }

    fn unreadable(&self, error: &dyn Display) -> DataFusionError {
        exec_datafusion_err!(
            "{NAME}: the checkpoint of model '{}' cannot be read ({}): {error}; expected overwrite => true without resume => \
             true, to begin anew",
            self.model,
            self.checkpoint()
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
                let config = options.config_from(dataset.source(), model.config());
                let config = config.map_err(|e| exec_error(NAME, &e))?;
                same_architecture(&name, &config, model.config()).map_err(|text| exec_datafusion_err!("{text}"))?;
                Trainer::from_model(options, dataset, &model).map_err(|e| exec_error(NAME, &e))
            }
            Self::Checkpoint(checkpoint) => Trainer::resume(options, dataset, &checkpoint)
                .map_err(|e| exec_datafusion_err!("{}", call.cannot_resume(&e))),
        }
    }
}
