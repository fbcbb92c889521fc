//! Statistics of the training rows as they are, by the trained model: where their codes lie, and what is usual at each
//! place of the anomaly map. They take two passes over the rows, and a third of features, for the covariance of residuals.

use super::Trainer;
use super::evaluation::{EVALUATED, STATISTICS_ROWS};
use crate::calibrate::{AnomalyStatistics, Covariance, LatentStatistics, TrainingSizes, UsualSums};
use crate::error::Result;
use crate::image::{PixelSlice, Pixels};
use crate::model::Wae;
use crate::objective::frechet::Moments;

impl Trainer {
    /// The statistics of the codes, of the first 10,000 rows, and of the anomaly map, of all.
    pub(super) fn statistics(&self, wae: &Wae) -> Result<(LatentStatistics, AnomalyStatistics)> {
        let image = self.config.image();
        let covariance = self.covariance(wae)?;
        let mut codes = Vec::new();
        let mut usual = UsualSums::new((image.height(), image.width()));
        self.reconstructions(wae, |batch| {
            let room = (STATISTICS_ROWS * self.config.latent_dim()).saturating_sub(codes.len());
            codes.extend(batch.codes.iter().take(room));
            usual.push(&batch.terms(wae, covariance.as_ref())?);
            Ok(())
        })?;
        let latent = LatentStatistics::of_codes(&codes, self.config.latent_dim())?;
        let mut sizes = TrainingSizes::new(usual.usual_size(self.config.score_scales(), covariance.is_some())?);
        self.reconstructions(wae, |batch| {
            sizes.push(&batch.terms(wae, covariance.as_ref())?);
            Ok(())
        })?;
        Ok((latent, sizes.statistics(covariance)))
    }

    /// The covariance of the residuals of features; images need none.
    fn covariance(&self, wae: &Wae) -> Result<Option<Covariance>> {
        if self.config.input().is_none() {
            return Ok(None);
        }
        let channels = self.config.image().channels();
        let mut residuals = Moments::try_new(&[], channels)?;
        self.reconstructions(wae, |batch| {
            let images = batch.images.to_f32();
            let pairs = images.iter().zip(batch.reconstructions);
            let batch: Vec<f64> = pairs.map(|(x, y)| f64::from(*x) - f64::from(*y)).collect();
            residuals.merge(&Moments::try_new(&batch, channels)?)
        })?;
        Covariance::of_moments(&residuals).map(Some)
    }

    /// Passes all training rows through the model, a batch at a time.
    fn reconstructions(&self, wae: &Wae, mut each: impl FnMut(Reconstructed<'_>) -> Result<()>) -> Result<()> {
        let rows: Vec<usize> = (0..self.dataset.training_rows()).collect();
        for rows in rows.chunks(EVALUATED) {
            self.check_cancelled()?;
            let images: Pixels = self.dataset.training_pixels(rows)?;
            let images = PixelSlice::from(&images);
            let codes = wae.encode(images)?;
            let reconstructions = wae.decode(&codes)?;
            each(Reconstructed { images, codes: &codes, reconstructions: &reconstructions })?;
        }
        Ok(())
    }
}

/// A batch of training rows, (N, H, W, C), their codes, (N, Z), and reconstructions, (N, H, W, C).
struct Reconstructed<'a> {
    images: PixelSlice<'a>,
    codes: &'a [f32],
    reconstructions: &'a [f32],
}

impl Reconstructed<'_> {
    /// The terms of the anomaly map, (N, H, W).
    fn terms(&self, wae: &Wae, covariance: Option<&Covariance>) -> Result<Vec<f32>> {
        wae.anomaly_terms(covariance, self.images, self.reconstructions)
    }
}
