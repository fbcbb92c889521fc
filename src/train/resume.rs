//! Trainings that begin from a checkpoint, or from another model's weights.

use super::Trainer;
use crate::checkpoint::{Checkpoint, CheckpointInfo, ModelFile, State};
use crate::config::TrainOptions;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::model::TrainingNetwork;

impl Trainer {
    /// Goes on from a checkpoint: from here on, every tensor, every epoch and the calibration are those of the training
    /// that it was taken from, bit for bit on the same kernels; clock values count on. Another device or precision is
    /// accepted, and the log says so: its results are then near and not equal.
    ///
    /// # Errors
    /// [`Error::Config`] if options or images are not those of the checkpoint, naming each difference
    /// ([`CheckpointInfo::check_options`]), or if a training with a pretrained network goes on by other kernels; and those
    /// of [`Self::try_new`].
    ///
    /// # Example
    /// ```no_run
    /// use wae_core::{Checkpoint, Dataset, Result, TrainOptions, Trainer};
    ///
    /// fn go_on(options: TrainOptions, images: Dataset) -> Result<()> {
    ///     let mut trainer = Trainer::resume(options, images, &Checkpoint::read(".m.checkpoint")?)?;
    ///     while let Some(epoch) = trainer.epochs().next() {
    ///         epoch?;
    ///         trainer.checkpoint()?.write(".m.checkpoint")?;
    ///     }
    ///     trainer.model()?.write("m.safetensors")
    /// }
    /// ```
    pub fn resume(options: TrainOptions, dataset: Dataset, checkpoint: &Checkpoint) -> Result<Self> {
        let mut trainer = Self::unstarted(options, dataset)?;
        let info = checkpoint.info();
        info.check(&trainer.options, &trainer.config, Some(trainer.dataset.fingerprint()))?;
        if let Some(warning) = info.other_kernels(&trainer.network.target().kernels()) {
            // The features of other kernels differ in their last bits, by which directions of equal variance may turn.
            if trainer.config.backbone().is_some() {
                return Err(Error::Config(format!("{warning}; with a backbone, it goes on by the same kernels alone")));
            }
            log::warn!("{warning}");
        }
        trainer.network =
            TrainingNetwork::from_tensors(&trainer.config, trainer.network.target(), checkpoint.tensors())?;
        trainer.network.set_optimizer(checkpoint.optimizer())?;
        (trainer.lambda, trainer.seconds_before) = (info.state.lambda, info.state.seconds);
        trainer.history.clone_from(&info.history);
        Ok(trainer)
    }

    /// Begins with the weights of a model, whose name is the option `init`, and with its whitening, which its weights are
    /// made for; Adam begins anew, and so does a discriminator where the model has none of the same layers.
    ///
    /// # Errors
    /// [`Error::ModelArchitecture`] with the first difference, and those of [`Self::try_new`].
    pub fn from_model(options: TrainOptions, dataset: Dataset, model: &ModelFile) -> Result<Self> {
        let dataset = match model.whitening() {
            Some(whitening) => dataset.whitened_by(whitening),
            None => dataset,
        };
        let mut trainer = Self::unstarted(options, dataset)?;
        trainer.config.check_same_architecture(model.config())?;
        let mut tensors = trainer.network.tensors()?;
        let widths = |objective: &crate::config::Objective| objective.adversary_widths().map(<[usize]>::to_vec);
        let same_adversary = widths(trainer.config.objective()) == widths(model.config().objective());
        for (name, tensor) in model.tensors() {
            if same_adversary || !name.starts_with("adversary.") {
                tensors.insert(name.clone(), tensor.clone());
            }
        }
        trainer.network = TrainingNetwork::from_tensors(&trainer.config, trainer.network.target(), &tensors)?;
        Ok(trainer)
    }

    /// The training as it stands between two epochs.
    ///
    /// # Errors
    /// [`Error::Training`] after an epoch that ended in an error, and if a weight or a moment is not finite.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        if self.within_epoch {
            return Err(Error::Training("a checkpoint is taken between two epochs, and one was not ended".to_owned()));
        }
        let optimizer = self.network.optimizer()?;
        let state = State {
            lambda: self.lambda,
            steps: optimizer.steps,
            adversary_steps: optimizer.adversary_steps,
            seconds: self.seconds(),
            options: self.options.used(),
            data: self.dataset.fingerprint().clone(),
            kernels: self.network.target().kernels(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let info = CheckpointInfo { config: self.config.clone(), history: self.history.clone(), state };
        Checkpoint::try_new(info, self.network.tensors()?, optimizer)
    }

    /// Seconds of training, those before a checkpoint counted.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }
}
