//! Training: the whole loop, an epoch at a time. It prints nothing and touches no file.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::Tensor;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::checkpoint::{ModelFile, TrainingInfo};
use crate::config::{Config, Cost, NetworkChoice, TrainOptions};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::model::{Network, Precision, Wae};
use crate::objective::{cost, mmd, prior};
use crate::ops;

/// Held-out rows whose codes enter the held-out divergence: its cost grows with their square.
const DIVERGENCE_ROWS: usize = 1000;
/// Held-out images decoded at a time.
const EVALUATED: usize = 256;

/// What an epoch came to: a row of `wae_train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Cost + λ·divergence, mean over the epoch's steps.
    pub loss: f64,
    /// The cost an image, mean over the epoch's steps.
    pub reconstruction_cost: f64,
    /// MMD² between a batch's codes and as many draws from the prior, mean over the epoch's steps.
    pub divergence: Option<f64>,
    /// The cost a held-out image after the epoch, in eval mode; `None` without held-out rows.
    pub holdout_reconstruction_cost: Option<f64>,
    /// MMD² between the codes of up to 1,000 held-out images and as many draws with a fixed seed.
    pub holdout_divergence: Option<f64>,
    /// The learning rate of the epoch.
    pub learning_rate: f64,
    /// Images trained on in the epoch.
    pub images: u64,
    /// Rows of the source that held no readable image.
    pub skipped: u64,
    /// Images trained on a second, evaluation left out.
    pub images_per_second: f64,
    /// Seconds since training began.
    pub seconds: f64,
}

/// A training, an epoch at a time.
///
/// The same options, data, thread count and kernels give the same tensors, bit for bit.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    config: Config,
    dataset: Dataset,
    network: Network,
    history: Vec<EpochReport>,
    started: Instant,
}

/// What random numbers are drawn for; each purpose of each epoch has a stream of its own.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Weights,
    Shuffle,
    Prior,
    Evaluation,
}

fn generator(seed: u64, purpose: Purpose, epoch: usize) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(epoch as u64 * 4 + purpose as u64);
    generator
}

/// The means of an epoch's steps.
#[derive(Debug, Default)]
struct Means {
    loss: f64,
    cost: f64,
    divergence: f64,
    steps: u64,
    images: u64,
}

impl Trainer {
    /// Fits the options to the images and initialises the network.
    ///
    /// # Errors
    /// [`Error::Config`] if the options are out of range, do not fit the images, or are others than those that the images were
    /// collected under.
    pub fn try_new(options: TrainOptions, dataset: Dataset) -> Result<Self> {
        options.validate()?;
        if !dataset.was_made_with(&options) {
            return Err(Error::Config(
                "the images were collected under another seed, holdout, size or crop".to_owned(),
            ));
        }
        let config = options.config_of_preprocessed(dataset.shape())?;
        let network = Network::initialise(&config, &mut generator(options.seed, Purpose::Weights, 0))?;
        Ok(Self { options, config, dataset, network, history: Vec::new(), started: Instant::now() })
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
    /// [`Error::Cancelled`] within a step once `cancelled` is set; [`Error::Training`] if the loss is not finite.
    pub fn next_epoch(&mut self, cancelled: &AtomicBool) -> Result<Option<EpochReport>> {
        let epoch = self.history.len() + 1;
        if epoch > self.options.epochs {
            return Ok(None);
        }
        let rate = self.options.learning_rate * self.options.schedule.factor(epoch - 1, self.options.epochs);
        let mut draws = generator(self.options.seed, Purpose::Prior, epoch);
        let mut rows: Vec<usize> = (0..self.dataset.training_rows()).collect();
        rows.shuffle(&mut generator(self.options.seed, Purpose::Shuffle, epoch));
        let (mut means, begun) = (Means::default(), Instant::now());
        let batch = self.options.batch_size.min(rows.len());
        for rows in rows.chunks_exact(batch) {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let images = self.batch(rows)?;
            let prior = prior::sample_with(self.config.prior(), rows.len(), self.config.latent_dim(), &mut draws);
            let values = step(&mut self.network, &self.config, &images, &prior, rate)?;
            if !values.iter().all(|v| v.is_finite()) {
                return Err(self.diverged(epoch, means.steps + 1, values, rate));
            }
            means.add(values, rows.len());
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (holdout_cost, holdout_divergence) = self.evaluate()?;
        let report = EpochReport {
            epoch,
            loss: means.loss,
            reconstruction_cost: means.cost,
            divergence: Some(means.divergence),
            holdout_reconstruction_cost: holdout_cost,
            holdout_divergence,
            learning_rate: rate,
            images: means.images,
            skipped: self.dataset.skipped(),
            images_per_second: means.images as f64 / seconds.max(1e-9),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        self.history.push(report.clone());
        Ok(Some(report))
    }

    /// The model as it stands, calibrated on the held-out rows.
    ///
    /// # Errors
    /// [`Error::Training`] if a weight is not finite, [`Error::Data`] if a held-out row's cost is not.
    pub fn model(&self) -> Result<ModelFile> {
        let tensors = self.network.tensors()?;
        // Adam can break the weights after a last loss that was finite; such a model must not replace a good one.
        if let Some((name, _)) = tensors.iter().find(|(_, t)| !t.values.iter().all(|v| v.is_finite())) {
            return Err(Error::Training(format!(
                "tensor '{name}' is not finite after training: try a smaller learning_rate"
            )));
        }
        let wae = Wae::from_tensors(self.config.clone(), &tensors, None, Precision::F32)?;
        let (costs, _) = self.held_out_costs(&wae)?;
        let calibration = if costs.is_empty() { None } else { Some(Calibration::try_new(costs)?) };
        let training = TrainingInfo {
            rows: self.dataset.training_rows() as u64,
            held_out: self.dataset.held_out_rows() as u64,
            skipped: self.dataset.skipped(),
            seed: self.options.seed,
            seconds: self.started.elapsed().as_secs_f64(),
            created: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: self.used_options(),
        };
        Ok(ModelFile::new(self.config.clone(), tensors, self.history.clone(), calibration, Some(training)))
    }

    /// The value used for each option that the configuration does not hold.
    fn used_options(&self) -> serde_json::Value {
        let options = &self.options;
        let network = match &options.network {
            NetworkChoice::Auto => "auto".to_owned(),
            NetworkChoice::Small => "small".to_owned(),
            NetworkChoice::Mnist => "mnist".to_owned(),
            NetworkChoice::Celeba => "celeba".to_owned(),
            NetworkChoice::Widths(widths) => widths.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        serde_json::json!({
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "learning_rate": options.learning_rate,
            "schedule": options.schedule.name(),
            "network": network,
            "holdout": options.holdout,
            "seed": options.seed,
        })
    }

    /// Training rows as a tensor, (N, H, W, C).
    fn batch(&self, rows: &[usize]) -> Result<Tensor> {
        let shape = self.config.image();
        ops::tensor(self.dataset.training(rows), &[rows.len(), shape.height(), shape.width(), shape.channels()])
    }

    /// Mean cost and divergence of the held-out rows, in eval mode.
    fn evaluate(&self) -> Result<(Option<f64>, Option<f64>)> {
        if self.dataset.held_out_rows() == 0 {
            return Ok((None, None));
        }
        let wae = Wae::from_tensors(self.config.clone(), &self.network.tensors()?, None, Precision::F32)?;
        let (costs, codes) = self.held_out_costs(&wae)?;
        let mean = costs.iter().map(|c| f64::from(*c)).sum::<f64>() / costs.len() as f64;
        let dim = self.config.latent_dim();
        let codes = &codes[..codes.len().min(DIVERGENCE_ROWS * dim)];
        let mut draws = generator(self.options.seed, Purpose::Evaluation, 0);
        let draws = prior::sample_with(self.config.prior(), codes.len() / dim, dim, &mut draws);
        Ok((Some(mean), mmd::value(&mmd::Kernel::of(&self.config), codes, &draws, dim)))
    }

    /// Costs (N,) and codes (N, Z) of the held-out rows.
    fn held_out_costs(&self, wae: &Wae) -> Result<(Vec<f32>, Vec<f32>)> {
        let (mut costs, mut codes) = (Vec::new(), Vec::new());
        let rows = self.dataset.held_out_rows();
        for start in (0..rows).step_by(EVALUATED) {
            let images = self.dataset.held_out(start..(start + EVALUATED).min(rows));
            let z = wae.encode(&images)?;
            costs.extend(wae.costs(&images, &wae.decode(&z)?)?);
            codes.extend(z);
        }
        Ok((costs, codes))
    }

    fn diverged(&self, epoch: usize, step: u64, [cost, divergence, _]: [f64; 3], rate: f64) -> Error {
        Error::Training(format!(
            "the loss is not finite at epoch {epoch}, step {step}: reconstruction cost {cost}, divergence {divergence}. Try a \
             learning_rate below {rate:e}, or a lambda below {}",
            self.config.objective().lambda()
        ))
    }
}

impl Means {
    fn add(&mut self, [cost, divergence, loss]: [f64; 3], images: usize) {
        self.steps += 1;
        self.images += images as u64;
        let n = self.steps as f64;
        self.cost += (cost - self.cost) / n;
        self.divergence += (divergence - self.divergence) / n;
        self.loss += (loss - self.loss) / n;
    }
}

/// One step on a batch: forward, the objective and its gradient, backward, Adam. Gives cost, divergence and loss; where they
/// are not finite, the weights are left as they were.
fn step(network: &mut Network, config: &Config, images: &Tensor, prior: &[f32], rate: f64) -> Result<[f64; 3]> {
    let values = gradients(network, config, images, prior)?;
    if values.iter().all(|v| v.is_finite()) {
        network.step(rate)?;
    }
    Ok(values)
}

/// The objective on a batch, with its gradients left in the network.
fn gradients(network: &mut Network, config: &Config, images: &Tensor, prior: &[f32]) -> Result<[f64; 3]> {
    let codes = network.encode(images)?; // (N, Z)
    let reconstructions = network.decode(&codes)?; // (N, H, W, C)
    let (rows, dim, lambda) = (images.dim(0)?, config.latent_dim(), config.objective().lambda());

    let (cost, by_image) = ops::with_values(images, |x| {
        ops::with_values(&reconstructions, |y| match config.cost() {
            Cost::Squared => cost::mean_squared(x, y, rows),
        })
    })??;
    let kernel = mmd::Kernel::of(config);
    let (divergence, by_code) =
        ops::with_values(&codes, |q| (mmd::value(&kernel, q, prior, dim), mmd::gradient(&kernel, q, prior, dim)))?;
    let divergence = divergence.ok_or_else(|| Error::Training(format!("a batch of {rows} rows has no divergence")))?;

    let through_decoder = network.decode_backward(ops::tensor(by_image, reconstructions.dims())?)?; // (N, Z)
    let by_code = ops::tensor(by_code, codes.dims())?;
    network.encode_backward((through_decoder.reshape(codes.dims())? + (by_code * lambda)?)?)?;
    Ok([cost, divergence, cost + lambda * divergence])
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
