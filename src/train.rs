//! Training: the whole loop, an epoch at a time. It prints nothing and writes no file.

mod codes;
mod memory;
mod pretraining;
mod random;
mod report;
mod resume;
mod step;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::seq::SliceRandom;

pub use self::report::EpochReport;
use crate::calibrate::{LatentStatistics, recalibrate_with};
use crate::checkpoint::{ModelFile, Tensors, TrainingInfo};
use crate::config::{Config, LambdaSchedule, Objective, TrainOptions};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::model::{Network, Precision, Wae};
use crate::objective::prior;
use crate::ops::{Target, Tensor};
use crate::train::random::{Purpose, generator};
use crate::train::step::{Draws, Generators, Pending, Rates, Step, Values};

/// Held-out rows whose codes enter the held-out divergence: its cost grows with their square.
const DIVERGENCE_ROWS: usize = 1000;
/// The same for the Sinkhorn divergence, which passes over all pairs many times.
const SINKHORN_ROWS: usize = 250;
/// Training rows whose codes' mean and covariance are kept: as many as say where a wide code lies.
const STATISTICS_ROWS: usize = 10_000;
/// Images scored at a time.
const EVALUATED: usize = 256;

/// A training, an epoch at a time.
///
/// The same options, data, thread count and kernels give the same tensors on the processor, bit for bit.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    config: Config,
    dataset: Dataset,
    network: Network,
    step: Step,
    /// λ now.
    lambda: f64,
    history: Vec<EpochReport>,
    started: Instant,
    /// Seconds of training before the checkpoint that it goes on from.
    seconds_before: f64,
    /// Whether an epoch was begun and not ended, as after an error: there is no going on from there.
    within_epoch: bool,
}

/// An epoch under way.
struct Progress {
    /// From 1.
    epoch: usize,
    rate: f64,
    means: Means,
    /// Steps whose values are still to be read, with their images.
    pending: VecDeque<(Pending, usize)>,
}

/// The means of an epoch's steps.
#[derive(Debug, Default)]
struct Means {
    loss: f64,
    cost: f64,
    divergence: Option<f64>,
    steps: u64,
    images: u64,
}

impl Trainer {
    /// Fits the options to the images and initialises the network.
    ///
    /// # Errors
    /// [`Error::Config`] if the options are out of range, do not fit the images, or are others than those that the images were
    /// collected under; or if they name a model to begin from, which [`Self::from_model`] takes; [`Error::Device`] if the device
    /// cannot be opened.
    pub fn try_new(options: TrainOptions, dataset: Dataset) -> Result<Self> {
        match &options.init {
            Some(name) => {
                Err(Error::Config(format!("option 'init' is '{name}', expected that model beside the options")))
            }
            None => Self::unstarted(options, dataset),
        }
    }

    /// A training with initial weights.
    fn unstarted(mut options: TrainOptions, dataset: Dataset) -> Result<Self> {
        options.validate()?;
        if !dataset.was_made_with(&options) {
            return Err(Error::Config(
                "the images were collected under another seed, holdout, size or crop".to_owned(),
            ));
        }
        let config = options.config_of_preprocessed(dataset.shape())?;
        let mut weights = generator(options.seed, Purpose::Weights, 0);
        let precision = options.precision.unwrap_or_default();
        let device = options.device.unwrap_or_default().resolved();
        let target = Target::open(device, precision)?;
        (options.device, options.precision) = (Some(device), Some(target.precision()));
        let network = Network::initialise(&config, &target, options.initialisation, &mut weights)?;
        let step = Step::new(config.clone(), options.noise, options.log_variance_penalty);
        let lambda = config.objective().lambda();
        let (history, started) = (Vec::new(), Instant::now());
        let (seconds_before, within_epoch) = (0.0, false);
        Ok(Self { options, config, dataset, network, step, lambda, history, started, seconds_before, within_epoch })
    }

    /// The configuration of the model in training.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A report for each epoch that is done.
    pub fn history(&self) -> &[EpochReport] {
        &self.history
    }

    /// Trains an epoch; `None` when all are done.
    ///
    /// An epoch has ⌊rows / batch⌋ steps, as in the authors' code, on rows shuffled anew: those that fill no whole batch are left
    /// out of it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] within a batch once `cancelled` is set; [`Error::Training`] if the loss is not finite.
    pub fn next_epoch(&mut self, cancelled: &AtomicBool) -> Result<Option<EpochReport>> {
        let epoch = self.history.len() + 1;
        if epoch > self.options.epochs {
            return Ok(None);
        }
        self.within_epoch = true;
        if epoch == 1 && self.options.pretrain {
            self.pretrain(cancelled)?;
        }
        let losses: Vec<f64> = self.history.iter().map(|report| report.loss).collect();
        let factor = self.options.schedule.factor(&losses, self.options.epochs);
        let rate = self.options.learning_rate * factor;
        let rates = Rates { network: rate, adversary: self.options.adversary_rate() * factor };
        let mut generators = Generators::new(self.options.seed, epoch);
        let mut rows: Vec<usize> = (0..self.dataset.training_rows()).collect();
        rows.shuffle(&mut generator(self.options.seed, Purpose::Shuffle, epoch));
        let begun = Instant::now();
        let mut progress = Progress { epoch, rate, means: Means::default(), pending: VecDeque::new() };
        let batch = self.options.batch_size.min(rows.len());
        // An adaptive λ needs a step's values before the next step.
        let ahead = match self.options.lambda_schedule {
            LambdaSchedule::Constant => self.network.target().steps_ahead(),
            LambdaSchedule::Adaptive => 0,
        };
        for rows in rows.chunks_exact(batch) {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let (images, draws) = (self.batch(rows)?, self.step.draw(rows.len(), &mut generators));
            let step = self.step.run(&mut self.network, &images, &draws, self.lambda, rates)?;
            progress.pending.push_back((step, rows.len()));
            self.read(&mut progress, ahead)?;
        }
        self.read(&mut progress, 0)?;
        self.network.target().synchronize()?;
        let means = progress.means;
        let seconds = begun.elapsed().as_secs_f64();
        let (holdout_cost, holdout_divergence) = self.evaluate(cancelled)?;
        let report = EpochReport {
            epoch,
            loss: means.loss,
            reconstruction_cost: means.cost,
            divergence: means.divergence,
            holdout_reconstruction_cost: holdout_cost,
            holdout_divergence,
            learning_rate: rate,
            images: means.images,
            skipped: self.dataset.skipped(),
            images_per_second: means.images as f64 / seconds.max(1e-9),
            seconds: self.seconds(),
        };
        self.history.push(report.clone());
        self.within_epoch = false;
        Ok(Some(report))
    }

    /// The model as it stands, calibrated on the held-out rows.
    ///
    /// # Errors
    /// [`Error::Training`] if a weight is not finite, [`Error::Data`] if a held-out row's cost is not.
    pub fn model(&self) -> Result<ModelFile> {
        self.model_unless(&AtomicBool::new(false))
    }

    /// The model as it stands, unless `cancelled` is set before it is calibrated.
    ///
    /// # Errors
    /// [`Error::Cancelled`] within a batch, and those of [`Self::model`].
    pub fn model_unless(&self, cancelled: &AtomicBool) -> Result<ModelFile> {
        let tensors = self.network.tensors()?;
        // Adam can break the weights after a last loss that was finite; such a model must not replace a good one.
        if let Some((name, _)) = tensors.iter().find(|(_, t)| !t.values.iter().all(|v| v.is_finite())) {
            return Err(Error::Training(format!(
                "tensor '{name}' is not finite after training: try a smaller learning_rate"
            )));
        }
        let wae = self.scorer(&tensors)?;
        let training = TrainingInfo {
            rows: self.dataset.training_rows() as u64,
            held_out: self.dataset.held_out_rows() as u64,
            skipped: self.dataset.skipped(),
            seed: self.options.seed,
            seconds: self.seconds(),
            created: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: self.options.used(),
        };
        let rows: Vec<usize> = (0..self.dataset.training_rows().min(STATISTICS_ROWS)).collect();
        let mut codes = Vec::with_capacity(rows.len() * self.config.latent_dim());
        for rows in rows.chunks(EVALUATED) {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            codes.extend(wae.encode(&self.dataset.training(rows)?)?);
        }
        let latent = LatentStatistics::of_codes(&codes, self.config.latent_dim())?;
        let file = ModelFile::new(self.config.clone(), tensors).with_training(self.history.clone(), training);
        recalibrate_with(&wae, &file.with_latent(latent), self.held_out(cancelled))
    }

    /// The model as it stands, in f32, where it is trained.
    fn scorer(&self, tensors: &Tensors) -> Result<Wae> {
        Wae::from_tensors(self.config.clone(), tensors, &self.network.target().with_precision(Precision::F32))
    }

    /// Training rows as a tensor, (N, H, W, C).
    fn batch(&self, rows: &[usize]) -> Result<Tensor> {
        self.network.target().batch(&self.dataset, rows)
    }

    /// Reads the values of all steps of an epoch but the last `ahead`.
    fn read(&mut self, progress: &mut Progress, ahead: usize) -> Result<()> {
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

    /// Mean cost and divergence of the held-out rows, in eval mode.
    fn evaluate(&mut self, cancelled: &AtomicBool) -> Result<(Option<f64>, Option<f64>)> {
        if self.dataset.held_out_rows() == 0 {
            return Ok((None, None));
        }
        let wae = self.scorer(&self.network.tensors()?)?;
        let mut costs = Vec::new();
        for images in self.held_out(cancelled) {
            let images = images?;
            costs.extend(wae.costs(&images, &wae.decode(&wae.encode(&images)?)?)?);
        }
        let mean = costs.iter().map(|c| f64::from(*c)).sum::<f64>() / costs.len() as f64;
        let limit = match self.config.objective() {
            Objective::Sinkhorn { .. } => SINKHORN_ROWS,
            _ => DIVERGENCE_ROWS,
        };
        let rows = self.dataset.held_out_rows().min(limit);
        let mut head = Vec::new();
        for start in (0..rows).step_by(EVALUATED) {
            head.extend(wae.encode_head(&self.dataset.held_out(start..(start + EVALUATED).min(rows))?)?);
        }
        let mut generator = generator(self.options.seed, Purpose::Evaluation, 0);
        let mut fixed = Generators::new(self.options.seed, 0);
        let prior = prior::sample_with(self.config.prior(), rows, self.config.latent_dim(), &mut generator);
        let draws = Draws { prior, ..self.step.draw(1, &mut fixed) };
        Ok((Some(mean), self.step.evaluate(&mut self.network, head, &draws)?))
    }

    /// The held-out images, some at a time, (N, H, W, C); [`Error::Cancelled`] in the place of those that come after.
    fn held_out(&self, cancelled: &AtomicBool) -> impl Iterator<Item = Result<Vec<f32>>> {
        let rows = self.dataset.held_out_rows();
        let batches = (0..rows).step_by(EVALUATED).map(move |start| start..(start + EVALUATED).min(rows));
        batches.map(|rows| match cancelled.load(Ordering::Relaxed) {
            true => Err(Error::Cancelled),
            false => self.dataset.held_out(rows),
        })
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

#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod objectives;
#[cfg(test)]
mod resumed;
#[cfg(test)]
pub(crate) mod tests;
