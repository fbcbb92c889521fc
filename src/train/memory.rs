//! How much memory a training takes beside its images.

use super::evaluation::{DIVERGENCE_ROWS, EVALUATED, SINKHORN_ROWS, STATISTICS_ROWS};
use super::pretraining::PRETRAINING_VALUES;
use crate::config::{Objective, TrainOptions};
use crate::device::Device;
use crate::error::Result;
use crate::image::ImageShape;
use crate::model::memory::{encoder_step_memory, images_memory, scoring_memory, step_memory, weights_memory};

/// What there is of a weight in a step: itself, its gradient, Adam's two moments, and packed for a kernel.
const COPIES_IN_A_STEP: usize = 5;
/// What there is of a weight when the model is made: itself, the two moments, in the file's order, packed twice, and the file. A
/// checkpoint takes one more: itself and the two moments, each of them in the file's order, and again as the file's bytes.
const COPIES_AT_THE_END: usize = 9;
/// What there is of a weight in memory at a checkpoint of a training on a GPU, where weights and moments lie: the three in the
/// file's order, again as the file's bytes, and two in page-locked memory that they have gone through.
const COPIES_BESIDE_A_GPU: usize = 8;
/// Batches on their way to a GPU: gathered, and in page-locked memory, of the step that is computed and of the next.
const BATCHES_BESIDE_A_GPU: usize = 4;
/// Matrices of f64 that the Sinkhorn divergence has of a batch: costs, and three transport problems.
const SINKHORN_MATRICES: usize = 4;

impl TrainOptions {
    /// Bytes of memory that a training takes at its worst moment beside the images, estimated from the architecture for
    /// images of shape `image` before they are resized and cropped: the larger of a step,
    ///
    /// ```text
    /// 4 · (5·P + n · (Σ values kept of each layer + 3·H·W·C + 3·a))
    /// ```
    ///
    /// and of the end, when the model is made and calibrated, `4 · (9·P + 256 images scored + the codes of 10,000 rows)`.
    ///
    /// Where: P is the number of parameters, n the batch size, a the values of the largest layer. Measured peaks lie between
    /// half of it and a tenth above (`tests/allocation.rs`).
    ///
    /// Where a GPU trains, layers and gradients lie there, and memory holds `4 · (8·P + 4 · max(n, 256)·H·W·C + the codes of 10,000
    /// rows)`.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if the options do not fit the images.
    pub fn memory(&self, image: ImageShape) -> Result<usize> {
        let preprocessed = self.preprocess.as_ref().map_or(image, |preprocess| preprocess.output(image));
        self.memory_of_preprocessed(preprocessed)
    }

    /// As [`Self::memory`], for images that are resized and cropped already, as a dataset's are.
    ///
    /// # Errors
    /// Those of [`Self::memory`].
    pub fn memory_of_preprocessed(&self, image: ImageShape) -> Result<usize> {
        let config = self.config_of_preprocessed(image)?;
        let square = |rows: usize| rows.saturating_mul(rows).saturating_mul(SINKHORN_MATRICES * size_of::<f64>());
        let pairs = match config.objective() {
            Objective::Sinkhorn { .. } => square(self.batch_size).max(square(SINKHORN_ROWS)),
            _ => 0,
        };
        let codes = (STATISTICS_ROWS + DIVERGENCE_ROWS) * config.latent_dim() * size_of::<f64>();
        if let Device::Cuda(_) = self.device.unwrap_or_default().resolved() {
            let batches = images_memory(&config, self.batch_size.max(EVALUATED).saturating_mul(BATCHES_BESIDE_A_GPU));
            let weights = weights_memory(&config, COPIES_BESIDE_A_GPU);
            return Ok(weights.saturating_add(batches).saturating_add(pairs).saturating_add(codes));
        }
        let batch = step_memory(&config, self.batch_size).saturating_add(pairs);
        let pretraining = match self.pretrain {
            true => encoder_step_memory(&config, PRETRAINING_VALUES.end() / config.image().len().max(1)),
            false => 0,
        };
        let step = weights_memory(&config, COPIES_IN_A_STEP).saturating_add(batch.max(pretraining));
        let end = weights_memory(&config, COPIES_AT_THE_END).saturating_add(scoring_memory(&config, EVALUATED) + codes);
        Ok(step.max(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights, batches and codes by hand; what the CPU takes for layers, a GPU has.
    #[test]
    fn beside_a_gpu_are_no_layers() {
        let options = |device| {
            let given = [("network", "64,128".into()), ("batch_size", 500.into()), ("latent_dim", 2.into())];
            TrainOptions { device: Some(device), ..TrainOptions::try_from_options(given).unwrap() }
        };
        let (shape, on_gpu) = (ImageShape::new(28, 28, 1), options(Device::Cuda(0)));
        let parameters = crate::model::parameters(&on_gpu.config(shape).unwrap());
        let expected = 4 * (8 * parameters + 4 * 500 * 784) + 11_000 * 2 * 8;
        assert_eq!(on_gpu.memory(shape).unwrap(), expected);
        assert!(options(Device::Cpu).memory(shape).unwrap() > 10 * expected);
    }
}
