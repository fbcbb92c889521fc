//! Estimates of the memory that a training takes beside its images.

use super::evaluation::{DIVERGENCE_ROWS, EVALUATED, SINKHORN_ROWS, STATISTICS_ROWS};
use super::pretraining::pretraining_images;
use crate::config::{BackboneChoice, Objective, TrainOptions};
use crate::dataset::IMAGES_SEEN;
use crate::device::Device;
use crate::error::Result;
use crate::image::ImageShape;
use crate::model::memory::{
    encoder_step_memory, images_memory, scoring_memory, step_memory, weights_memory, whitening_memory,
};

/// Copies of a weight in a step: itself, its gradient, Adam's two moments, and packed for a kernel.
const COPIES_IN_A_STEP: usize = 5;
/// Copies of a weight when the model is made: itself, the two moments, in the file's order, packed twice, and the file.
/// A checkpoint takes one more: itself and the two moments, each of them in the file's order, and again as the file's
/// bytes.
const COPIES_AT_THE_END: usize = 9;
/// Copies of a weight in memory at a checkpoint of a training on a GPU, where weights and moments lie: the three as
/// they were read, in the file's order, and as the file's bytes; most of the first are gone before the last are made.
const COPIES_BESIDE_A_GPU: usize = 8;
/// Copies of images in memory beside a GPU: gathered for a step, being uploaded, held-out ones and their
/// reconstructions.
const BATCHES_BESIDE_A_GPU: usize = 4;
/// Copies of input noise in memory beside a GPU: drawn, and being uploaded.
const NOISE_BESIDE_A_GPU: usize = 2;
/// Matrices of f64 that the Sinkhorn divergence has of a batch: thirteen for each of three transport problems, counted.
const SINKHORN_MATRICES: usize = 39;

impl TrainOptions {
    /// Bytes of memory that a training takes at its worst moment beside the images, estimated from the architecture for
    /// images of shape `image` before they are resized and cropped: the larger of a step,
    ///
    /// ```text
    /// 4 · (5·P + n · (Σ values kept of each layer + 3·H·W·C + 3·a)) + 312·m²
    /// ```
    ///
    /// and of the end, when the model is made and calibrated,
    ///
    /// ```text
    /// 4 · (9·P + 256 · (3·H·W·C + d_z) + k·2·a) + 8·(10,000 + 1,000)·d_z
    /// ```
    ///
    /// Where: P is the number of parameters, n the batch size, a the values of the largest layer, d_z the latent
    /// dimension, k ≤ 256 the images that pass together in scoring; m is 0 but for the Sinkhorn divergence, for which
    /// it is the larger of n and the 250 held-out rows. Features of C channels take at least 24·C², for their
    /// covariance. A pretrained network takes its weights and what it works with on a few images, and at the end twice
    /// its part of the model file. A step of pre-training is counted as one on p images without the decoder, where it
    /// is larger: p is 1,000 of 28×28, and 256 of 64×64×3. Measured peaks of images lie between half of it and a tenth
    /// above (`tests/allocation.rs`).
    ///
    /// Where a GPU trains, layers and gradients lie there, and memory holds
    ///
    /// ```text
    /// 4 · (8·P + 4·max(n, 256, p)·H·W·C + 2·n·H·W·C) + 8·(10,000 + 1,000)·d_z
    /// ```
    ///
    /// Where: p is 0 without pre-training; 2·n·H·W·C is input noise, where there is any.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if the options do not fit the images.
    pub fn memory(&self, image: ImageShape) -> Result<usize> {
        self.memory_of_preprocessed(self.source(image)?)
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
        let pretraining = match self.pretrain {
            true => pretraining_images(config.image()),
            false => 0,
        };
        let (network, work, file) = self.backbone_memory()?;
        if let Device::Cuda(_) | Device::Metal(_) = self.device.unwrap_or_default().resolved() {
            let images = self.batch_size.max(EVALUATED).max(pretraining).saturating_mul(BATCHES_BESIDE_A_GPU);
            let noise = if self.noise > 0.0 { self.batch_size.saturating_mul(NOISE_BESIDE_A_GPU) } else { 0 };
            let batches = images_memory(&config, images.saturating_add(noise));
            let weights = weights_memory(&config, COPIES_BESIDE_A_GPU);
            let training = weights.saturating_add(batches).saturating_add(codes).saturating_add(file);
            return Ok(network.saturating_add(training.max(whitening_memory(&config)).max(work)));
        }
        let batch = step_memory(&config, self.batch_size).saturating_add(pairs);
        let pretraining = encoder_step_memory(&config, pretraining);
        let step = weights_memory(&config, COPIES_IN_A_STEP).saturating_add(batch.max(pretraining));
        let end = weights_memory(&config, COPIES_AT_THE_END).saturating_add(scoring_memory(&config, EVALUATED) + codes);
        // Before the first step, when the source has been read.
        let before = whitening_memory(&config).max(work);
        Ok(network.saturating_add(step.max(end.saturating_add(file)).max(before)))
    }

    /// Bytes of a pretrained network: those that it holds throughout, at work on the images that are read together, and
    /// for its part of the model file, which is there as tensors and as the file's bytes.
    fn backbone_memory(&self) -> Result<(usize, usize, usize)> {
        let Some(extractor) = self.extractor()? else { return Ok((0, 0, 0)) };
        let file = if self.embed { extractor.file_bytes().saturating_mul(2) } else { 0 };
        let held = self.backbone.as_ref().map_or(0, BackboneChoice::memory);
        Ok((held, extractor.working_memory(IMAGES_SEEN), file))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn memory(device: Device, given: &[(&str, serde_json::Value)]) -> (usize, usize) {
        let always = [("network", "64,128".into()), ("latent_dim", 2.into())];
        let options = TrainOptions::try_from_options(always.into_iter().chain(given.iter().cloned())).unwrap();
        let options = TrainOptions { device: Some(device), ..options };
        let shape = ImageShape::new(28, 28, 1);
        (options.memory(shape).unwrap(), crate::architecture::parameters(&options.config(shape).unwrap()))
    }

    /// Weights, images and codes by hand.
    #[rstest]
    #[case::large_batch(&[("batch_size", 500.into())], 4 * 4 * 500 * 784)]
    #[case::small_batch(&[("batch_size", 10.into())], 4 * 4 * 256 * 784)]
    #[case::noise(&[("batch_size", 500.into()), ("noise", 0.1.into())], 4 * (4 + 2) * 500 * 784)]
    #[case::noise_of_few(&[("batch_size", 10.into()), ("noise", 0.1.into())], 4 * (4 * 256 + 2 * 10) * 784)]
    #[case::pretraining(&[("batch_size", 500.into()), ("pretrain", true.into())], 4 * 4 * 1000 * 784)]
    #[case::sinkhorn(&[("batch_size", 500.into()), ("objective", "sinkhorn".into())], 4 * 4 * 500 * 784)]
    fn beside_a_gpu(#[case] given: &[(&str, serde_json::Value)], #[case] expected: usize) {
        let (memory, parameters) = memory(Device::Cuda(0), given);
        assert_eq!(memory, 4 * 8 * parameters + expected + 11_000 * 2 * 8);
    }

    /// Layers take memory of the GPU there.
    #[test]
    fn beside_a_gpu_are_no_layers() {
        let given = [("batch_size", 500.into())];
        assert!(memory(Device::Cpu, &given).0 > 10 * memory(Device::Cuda(0), &given).0);
    }
}
