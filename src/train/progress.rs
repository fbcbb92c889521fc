//! The losses of an epoch's steps, which may be read some steps later.

use super::Trainer;
use super::step::{Losses, PendingLosses};
use crate::config::Objective;
use crate::error::{Error, Result};

/// The running state of an epoch.
pub(super) struct Progress {
    /// From 1.
    pub(super) epoch: usize,
    pub(super) rate: f64,
    pub(super) means: EpochMeans,
    /// Losses of steps that are still to be read, with the number of images of each.
    pending: Vec<(PendingLosses, usize)>,
}

/// The means of an epoch's steps.
#[derive(Debug, Default)]
pub(super) struct EpochMeans {
    pub(super) loss: f64,
    pub(super) cost: f64,
    pub(super) divergence: Option<f64>,
    pub(super) steps: u64,
    pub(super) images: u64,
}

impl Progress {
    /// The state before the first step of an epoch, from 1.
    pub(super) fn new(epoch: usize, rate: f64) -> Self {
        Self { epoch, rate, means: EpochMeans::default(), pending: Vec::new() }
    }

    /// Adds the losses of a step on `images` images.
    pub(super) fn push(&mut self, losses: PendingLosses, images: usize) {
        self.pending.push((losses, images));
    }

    /// Steps whose losses are still to be read.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}

impl Trainer {
    /// Reads the losses of all pending steps of an epoch.
    pub(super) fn read(&mut self, progress: &mut Progress) -> Result<()> {
        for (step, images) in std::mem::take(&mut progress.pending) {
            let losses = step.read()?;
            if !losses.are_finite() {
                return Err(self.diverged(progress, losses));
            }
            progress.means.add(losses, images);
            let schedule = self.options.lambda_schedule;
            self.lambda = schedule.next(self.lambda, self.network.steps(), losses.cost, losses.divergence);
        }
        Ok(())
    }

    fn diverged(&self, progress: &Progress, losses: Losses) -> Error {
        let epoch = progress.epoch;
        let step = progress.means.steps + 1;
        let rate = progress.rate;
        let divergence = losses.divergence.map(|d| format!(", divergence {d}")).unwrap_or_default();
        let lambda = match self.config.objective() {
            Objective::Ae {} => String::new(),
            _ => format!(", or a lambda below {}", self.lambda),
        };
        Error::Training(format!(
            "the loss is not finite at epoch {epoch}, step {step}: reconstruction cost {}{divergence}. Try a learning_rate \
             below {rate:e}{lambda}",
            losses.cost
        ))
    }
}

impl EpochMeans {
    fn add(&mut self, losses: Losses, images: usize) {
        self.steps += 1;
        self.images += images as u64;
        let n = self.steps as f64;
        self.cost += (losses.cost - self.cost) / n;
        self.loss += (losses.loss - self.loss) / n;
        self.divergence = losses.divergence.map(|d| {
            let mean = self.divergence.unwrap_or_default();
            mean + (d - mean) / n
        });
    }
}
