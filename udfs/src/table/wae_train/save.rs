//! The epochs of a training, its checkpoints, and the model at its end.

use std::fmt::Display;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use datafusion::common::{Result, exec_datafusion_err};
use wae_core::{Dataset, EpochReport, Trainer};

use super::exec::Training;
use super::start::Start;
use super::{NAME, report};
use crate::models;
use crate::models::running::RunningGuard;
use crate::table::worker::{Stopped, Worker};

impl Training {
    /// Trains, writes checkpoints where they are due, and saves the model when the last epoch is done.
    pub(super) fn train(
        &self,
        worker: &Worker,
        dataset: Dataset,
        start: Start,
        running: RunningGuard,
    ) -> Result<(), Stopped> {
        let anew = !matches!(start, Start::Checkpoint(_));
        let mut trainer = start.trainer(&self.call, dataset)?.cancelled_by(Arc::clone(worker.cancelled()));
        if anew {
            // If this training is stopped in turn, the checkpoint of the one before must not be taken for its own.
            self.remove_checkpoint()?;
        }
        trainer.history().iter().for_each(|report| running.push(report.clone()));
        let mut running = Some(running);
        let mut saved = Instant::now();
        while let Some(report) = trainer.epochs().next() {
            let report = report.map_err(|e| worker.stopped(e))?;
            let epoch = report.epoch;
            self.state.done.store(epoch, Ordering::Relaxed);
            let row = report::batch(std::slice::from_ref(&report))?;
            if epoch < self.call.train.epochs {
                self.save_checkpoint(&trainer, &report, &mut saved)?;
                if let Some(running) = &running {
                    running.push(report);
                }
            } else {
                self.save_model(&trainer, worker)?;
                // A reader of the last row may start the next training of this name.
                running = None;
            }
            worker.send(row)?;
        }
        if running.is_some() {
            // All epochs were done: a checkpoint of as many as are asked for now.
            self.save_model(&trainer, worker)?;
        }
        Ok(())
    }

    /// Writes a checkpoint if one is due.
    fn save_checkpoint(&self, trainer: &Trainer, report: &EpochReport, saved: &mut Instant) -> Result<()> {
        if !self.call.train.checkpoint_every.is_due(report.epoch, saved.elapsed()) {
            return Ok(());
        }
        let file = self.call.checkpoint();
        let epoch = report.epoch;
        let failed = |e: &dyn Display| {
            exec_datafusion_err!(
                "{NAME}: cannot write the checkpoint of epoch {epoch} of model '{}' ({file}): {e}",
                self.call.model
            )
        };
        let bytes = trainer.checkpoint().and_then(|checkpoint| checkpoint.to_bytes()).map_err(|e| failed(&e))?;
        file.write(bytes).map_err(|e| failed(&e))?;
        *saved = Instant::now();
        self.state.checkpoint.store(epoch, Ordering::Relaxed);
        log::info!("{NAME}: wrote {file} (epoch {epoch})");
        Ok(())
    }

    /// Writes the model, then removes the checkpoint.
    fn save_model(&self, trainer: &Trainer, worker: &Worker) -> Result<(), Stopped> {
        self.call.check_overwrite()?;
        let model = trainer.model().map_err(|e| worker.stopped(e))?;
        models::write_file(NAME, &self.call.file, &model)?;
        self.state.saved.store(true, Ordering::Release);
        Ok(self.remove_checkpoint()?)
    }

    fn remove_checkpoint(&self) -> Result<()> {
        let file = self.call.checkpoint();
        match file.delete() {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(exec_datafusion_err!("{NAME}: cannot remove the checkpoint {file}: {e}"))
            }
            _ => {
                self.state.checkpoint.store(0, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}
