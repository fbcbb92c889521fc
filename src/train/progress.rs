//! The steps of an epoch, whose values may be read late.

use std::collections::VecDeque;

use super::Trainer;
use super::step::{Pending, Values};
use crate::config::Objective;
use crate::error::{Error, Result};

/// An epoch under way.
pub(super) struct Progress {
    /// From 1.
    pub(super) epoch: usize,
    pub(super) rate: f64,
    pub(super) means: Means,
    /// Steps whose values are still to be read, with their images.
    pending: VecDeque<(Pending, usize)>,
}

/// The means of an epoch's steps.
#[derive(Debug, Default)]
pub(super) struct Means {
    pub(super) loss: f64,
    pub(super) cost: f64,
    pub(super) divergence: Option<f64>,
    pub(super) steps: u64,
    pub(super) images: u64,
}

impl Progress {
    /// An epoch, from 1, before its first step.
    pub(super) fn new(epoch: usize, rate: f64) -> Self {
        Self { epoch, rate, means: Means::default(), pending: VecDeque::new() }
    }

    /// Adds a step on so many images.
    pub(super) fn push(&mut self, step: Pending, images: usize) {
        self.pending.push_back((step, images));
    }
}

impl Trainer {
    /// Reads the values of all steps of an epoch but the last `ahead`.
    pub(super) fn read(&mut self, progress: &mut Progress, ahead: usize) -> Result<()> {
        while progress.pending.len() > ahead {
            let Some((step, images)) = progress.pending.pop_front() else { break };
            let values = step.read()?;
            if !values.are_finite() {
                return Err(self.diverged(progress, values));
            }
            progress.means.add(values, images);
            let schedule = self.options.lambda_schedule;
            self.lambda = schedule.next(self.lambda, self.network.steps(), values.cost, values.divergence);
        }
        Ok(())
    }

    fn diverged(&self, progress: &Progress, values: Values) -> Error {
        let (epoch, step, rate) = (progress.epoch, progress.means.steps + 1, progress.rate);
        let divergence = values.divergence.map(|d| format!(", divergence {d}")).unwrap_or_default();
        let lambda = match self.config.objective() {
            Objective::Ae {} => String::new(),
            _ => format!(", or a lambda below {}", self.lambda),
        };
        Error::Training(format!(
            "the loss is not finite at epoch {epoch}, step {step}: reconstruction cost {}{divergence}. Try a learning_rate \
             below {rate:e}{lambda}",
            values.cost
        ))
    }
}

impl Means {
    fn add(&mut self, values: Values, images: usize) {
        self.steps += 1;
        self.images += images as u64;
        let n = self.steps as f64;
        self.cost += (values.cost - self.cost) / n;
        self.loss += (values.loss - self.loss) / n;
        self.divergence = values.divergence.map(|d| {
            let mean = self.divergence.unwrap_or_default();
            mean + (d - mean) / n
        });
    }
}
