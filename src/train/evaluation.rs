//! The held-out rows after each epoch, and the model that a training leaves.

use super::Trainer;
use super::random::{Purpose, generator};
use super::step::{Draws, Generators};
use crate::checkpoint::{ModelBackbone, ModelFile, Tensors, TrainingInfo};
use crate::config::Objective;
use crate::device::Precision;
use crate::error::{Error, Result};
use crate::image::Pixels;
use crate::model::{Wae, recalibrate_with};
use crate::objective::prior;

/// Held-out rows whose codes enter the held-out divergence: its cost grows with their square.
pub(super) const DIVERGENCE_ROWS: usize = 1000;
/// The same number for the Sinkhorn divergence, which passes over all pairs many times.
pub(super) const SINKHORN_ROWS: usize = 250;
/// Training rows whose codes' mean and covariance are kept: enough for the covariance of wide codes.
pub(super) const STATISTICS_ROWS: usize = 10_000;
/// Images scored at a time.
pub(super) const EVALUATED: usize = 256;

impl Trainer {
    /// The model as it stands, calibrated on the held-out rows.
    ///
    /// # Errors
    /// [`Error::Training`] if a weight is not finite, [`Error::Data`] if a held-out row's cost is not, and
    /// [`Error::Cancelled`] within a batch once the flag of [`Self::cancelled_by`] is set.
    pub fn model(&self) -> Result<ModelFile> {
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
        let (latent, anomaly) = self.statistics(&wae)?;
        let file = ModelFile::new(self.config.clone(), tensors, self.dataset.whitening().cloned());
        let backbone = ModelBackbone::new(self.options.extractor()?, self.options.embedded()?);
        let file = file.with_model_backbone(backbone).with_training(self.history.clone(), training).with_latent(latent);
        recalibrate_with(&wae.with_anomaly(anomaly.clone()), &file.with_anomaly(anomaly), self.held_out())
    }

    /// The model as it stands, in f32, on the device of the training.
    fn scorer(&self, tensors: &Tensors) -> Result<Wae> {
        Wae::from_tensors(self.config.clone(), tensors, &self.network.target().with_precision(Precision::F32))
    }

    /// Mean cost and divergence of the held-out rows, in eval mode.
    pub(super) fn evaluate(&self) -> Result<(Option<f64>, Option<f64>)> {
        if self.dataset.held_out_rows() == 0 {
            return Ok((None, None));
        }
        let wae = self.scorer(&self.network.tensors()?)?;
        let mut costs = Vec::new();
        for images in self.held_out() {
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
            head.extend(wae.encode_head(&self.dataset.held_out_pixels(start..(start + EVALUATED).min(rows))?)?);
        }
        let mut generator = generator(self.options.seed, Purpose::Evaluation, 0);
        let mut fixed = Generators::new(self.options.seed, 0);
        let prior = prior::sample_with(self.config.prior(), rows, self.config.latent_dim(), &mut generator);
        let target = self.network.target();
        let fixed = self.step.draw(1, &mut fixed, target)?;
        let draws = Draws { directions: fixed.directions, ..Draws::of_prior(prior, self.config.latent_dim(), target)? };
        Ok((Some(mean), self.step.evaluate(&self.network, head, &draws)?))
    }

    /// The held-out images in batches, (N, H, W, C); [`Error::Cancelled`] for each batch once the flag is set.
    fn held_out(&self) -> impl Iterator<Item = Result<Pixels>> {
        let rows = self.dataset.held_out_rows();
        let batches = (0..rows).step_by(EVALUATED).map(move |start| start..(start + EVALUATED).min(rows));
        batches.map(|rows| {
            self.check_cancelled()?;
            self.dataset.held_out_pixels(rows)
        })
    }
}
