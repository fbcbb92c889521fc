//! Training: the whole loop, an epoch at a time. It prints nothing and writes no file.

mod augment;
mod epochs;
mod evaluation;
mod memory;
mod pretraining;
mod progress;
mod random;
mod resume;
mod statistics;
mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use self::epochs::Epochs;
use crate::architecture::largest_activation;
use crate::checkpoint::EpochReport;
use crate::config::{Config, TrainOptions};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::model::TrainingNetwork;
use crate::ops::Target;
use crate::train::random::{Purpose, generator};
use crate::train::step::Step;

/// A training, which [`Trainer::epochs`] runs an epoch at a time.
///
/// The same options, data, thread count and kernels give the same tensors on the processor, bit for bit.
#[derive(Debug)]
pub struct Trainer {
    options: TrainOptions,
    config: Config,
    dataset: Dataset,
    network: TrainingNetwork,
    step: Step,
    /// λ now.
    lambda: f64,
    history: Vec<EpochReport>,
    started: Instant,
    /// Seconds of training before the checkpoint from which it was resumed.
    seconds_before: f64,
    /// Whether an epoch was begun and not ended. After an error the training cannot go on.
    within_epoch: bool,
    /// Set from outside where the training is to stop.
    cancelled: Arc<AtomicBool>,
}

impl Trainer {
    /// Fits the options to the images and initialises the network.
    ///
    /// # Errors
    /// [`Error::TrainOption`] or [`Error::Config`] if the options are out of range, do not fit the images, or are
    /// others than those that the images were collected under; or if they name a model to begin from, which
    /// [`Self::from_model`] takes; [`Error::Device`] if the device cannot be opened.
    pub fn try_new(options: TrainOptions, dataset: Dataset) -> Result<Self> {
        match &options.init {
            Some(name) => {
                Err(Error::train_option("init", format!("is '{name}', expected that model beside the options")))
            }
            None => Self::unstarted(options, dataset),
        }
    }

    /// A training with initial weights.
    fn unstarted(mut options: TrainOptions, dataset: Dataset) -> Result<Self> {
        options.validate()?;
        let device = options.device.unwrap_or_default().resolved();
        let target = Target::open(device, options.precision.unwrap_or_default())?;
        (options.device, options.precision) = (Some(device), Some(target.precision()));
        Self::on_target(options, dataset, target)
    }

    /// A training with initial weights, where the device of the options is open.
    fn on_target(options: TrainOptions, dataset: Dataset, target: Target) -> Result<Self> {
        if !dataset.was_made_with(&options) {
            return Err(Error::Config(
                "the images were collected under another seed, holdout, size, crop, input, components, backbone or \
                 layer"
                    .to_owned(),
            ));
        }
        options.check_embedded()?;
        let config = options.config_of(dataset.shape(), dataset.source())?;
        target.check_rows(options.batch_size.min(dataset.training_rows()), largest_activation(&config))?;
        let mut weights = generator(options.seed, Purpose::Weights, 0);
        let network = TrainingNetwork::initialise(&config, &target, options.initialisation, &mut weights)?;
        let step = Step::new(config.clone(), options.noise, options.log_variance_penalty);
        Ok(Self {
            lambda: config.objective().lambda(),
            options,
            config,
            dataset,
            network,
            step,
            history: Vec::new(),
            started: Instant::now(),
            seconds_before: 0.0,
            within_epoch: false,
            cancelled: Arc::default(),
        })
    }

    /// The configuration of the model in training.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A report for each epoch that is done.
    pub fn history(&self) -> &[EpochReport] {
        &self.history
    }

    /// The epochs that are left, each trained when it is asked for. After an error there are none.
    ///
    /// An epoch has ⌊rows / batch⌋ steps, as in the authors' code, on rows shuffled anew: those that fill no whole
    /// batch are left out of it.
    ///
    /// # Errors
    /// An epoch is [`Error::Cancelled`] within a batch once the flag of [`Self::cancelled_by`] is set, and
    /// [`Error::Training`] if the loss is not finite.
    pub fn epochs(&mut self) -> Epochs<'_> {
        Epochs(self)
    }

    /// Lets a flag stop the training: once it is set, an epoch or [`Self::model`] ends within a batch with
    /// [`Error::Cancelled`].
    ///
    /// # Example
    /// ```no_run
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// use wae_core::{Error, Result, Trainer};
    ///
    /// /// Trains until Enter is pressed.
    /// fn train(trainer: Trainer) -> Result<Trainer> {
    ///     let flag = Arc::new(AtomicBool::new(false));
    ///     let mut trainer = trainer.cancelled_by(Arc::clone(&flag));
    ///     std::thread::spawn(move || {
    ///         let _ = std::io::stdin().read_line(&mut String::new());
    ///         flag.store(true, Ordering::Relaxed);
    ///     });
    ///     for epoch in trainer.epochs() {
    ///         match epoch {
    ///             Ok(report) => println!("epoch {}: loss {}", report.epoch, report.loss),
    ///             Err(Error::Cancelled) => break,
    ///             Err(error) => return Err(error),
    ///         }
    ///     }
    ///     Ok(trainer)
    /// }
    /// ```
    pub fn cancelled_by(self, flag: Arc<AtomicBool>) -> Self {
        Self { cancelled: flag, ..self }
    }

    /// [`Error::Cancelled`] once the flag is set.
    fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
pub(crate) mod tests;
