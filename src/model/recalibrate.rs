//! Held-out scores of other rows in the place of a model's own.

use super::Wae;
use super::memory::{scoring_memory, weights_memory};
use crate::calibrate::{Calibration, Score};
use crate::checkpoint::ModelFile;
use crate::config::Config;
use crate::device::{Device, Precision};
use crate::error::Result;
use crate::image::{PixelSlice, Pixels};

/// Bytes of memory that [`recalibrate`] takes for a model and one batch of so many rows, beside the scores: the file
/// and its copy, the weights packed, and a pass.
pub fn calibration_memory(config: &Config, rows: usize) -> usize {
    weights_memory(config, 3).saturating_add(scoring_memory(config, rows))
}

/// A model with the scores of other held-out rows in the place of its own: rows like those that it will be asked about,
/// which it was not trained on. Without any row it is left as it is. The scores are computed in f32 on the device
/// given, whatever the model is asked in later.
///
/// # Shapes
/// `batches` give images, (N, H, W, C), preprocessed as the model does, floats in [0, 1] or bytes; or whitened features. No more than one is
/// kept.
///
/// # Errors
/// Those of a batch, [`Error::Data`](crate::Error::Data) if a score is not finite, and
/// [`Error::Device`](crate::Error::Device) if the device cannot be opened.
pub fn recalibrate(
    file: &ModelFile,
    device: Device,
    batches: impl Iterator<Item = Result<impl Into<Pixels>>>,
) -> Result<ModelFile> {
    recalibrate_with(&Wae::try_new(file, device, Precision::F32)?, file, batches)
}

/// As [`recalibrate`], with the file's model wherever it computes.
pub(crate) fn recalibrate_with(
    wae: &Wae,
    file: &ModelFile,
    batches: impl Iterator<Item = Result<impl Into<Pixels>>>,
) -> Result<ModelFile> {
    let mut costs = Vec::new();
    let mut anomalies = Vec::new();
    let mut distances = Vec::new();
    for images in batches {
        let images = images?.into();
        let images = PixelSlice::from(&images);
        let codes = wae.encode(images)?; // (N, Z)
        let reconstructions = wae.decode(&codes)?; // (N, H, W, C)
        costs.extend(wae.costs(images, &reconstructions)?);
        anomalies.extend(wae.anomalies(images, &reconstructions)?);
        distances.extend(file.latent().map(|latent| latent.distances(&codes)).unwrap_or_default());
    }
    if costs.is_empty() {
        return Ok(file.clone());
    }
    let calibration = Calibration::try_new(costs)?.with_scores(Score::AnomalyScore, anomalies)?;
    let calibration = match file.latent() {
        Some(_) => calibration.with_scores(Score::LatentDistance, distances)?,
        None => calibration,
    };
    Ok(file.clone().with_calibration(calibration))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const GOLDEN: &[u8] = include_bytes!("../../fixtures/golden/golden.model.safetensors");

    /// Seven images, each brighter than the one before it.
    fn images(file: &ModelFile) -> Vec<f32> {
        let len = file.config().image().len();
        (0..7 * len).map(|i| (i / len) as f32 / 8.0 + (i % 13) as f32 / 120.0).collect()
    }

    #[test]
    fn recalibration_keeps_the_scores_and_changes_nothing_else() {
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        let images = images(&file);
        let len = file.config().image().len();
        let new = recalibrate(&file, Device::Cpu, images.chunks(3 * len).map(|batch| Ok(batch.to_vec()))).unwrap();
        let wae = Wae::try_new(&file, Device::Cpu, Precision::F32).unwrap();
        let reconstructions = wae.decode(&wae.encode(&images).unwrap()).unwrap();
        let mut costs = wae.costs(&images, &reconstructions).unwrap();
        let mut anomalies = wae.anomalies(&images, &reconstructions).unwrap();
        costs.sort_by(f32::total_cmp);
        anomalies.sort_by(f32::total_cmp);
        let calibration = new.calibration().unwrap();
        assert_eq!(calibration.scores(Score::Cost).unwrap().values(), costs);
        assert_eq!(calibration.scores(Score::AnomalyScore).unwrap().values(), anomalies);
        assert_eq!((new.config(), new.tensors()), (file.config(), file.tensors()));
        // It reads back, and a second calibration replaces the first.
        let read = ModelFile::from_bytes(&new.to_bytes().unwrap()).unwrap();
        assert_eq!(read, new);
        let one = recalibrate(&read, Device::Cpu, [Ok(images[..len].to_vec())].into_iter()).unwrap();
        assert_eq!(one.calibration().unwrap().len(), 1);
    }

    #[test]
    fn bytes_calibrate_as_the_floats_that_they_stand_for() {
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        let bytes: Vec<u8> = images(&file).iter().map(|v| (v * 255.0) as u8).collect();
        let floats: Vec<f32> = bytes.iter().map(|v| f32::from(*v) / 255.0).collect();
        let of_bytes = recalibrate(&file, Device::Cpu, [Ok(bytes)].into_iter()).unwrap();
        assert_eq!(of_bytes, recalibrate(&file, Device::Cpu, [Ok(floats)].into_iter()).unwrap());
        assert_ne!(of_bytes, file);
    }

    /// It computes where it is told to: no machine has a hundred GPUs.
    #[test]
    fn recalibration_takes_the_device() {
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        let error = recalibrate(&file, Device::Cuda(99), [Ok(images(&file))].into_iter()).unwrap_err();
        assert!(matches!(&error, Error::Device(reason) if reason.starts_with("cuda:99: ")), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn recalibration_on_cuda_gives_the_scores_of_the_cpu() {
        if crate::ops::Target::gpu_of_tests(Precision::F32).is_none() {
            return;
        }
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        let bytes: Vec<u8> = images(&file).iter().map(|v| (v * 255.0) as u8).collect();
        let len = file.config().image().len();
        let calibrated =
            |device| recalibrate(&file, device, bytes.chunks(3 * len).map(|batch| Ok(batch.to_vec()))).unwrap();
        let got = calibrated(Device::Cuda(0));
        let expected = calibrated(Device::Cpu);
        let got = got.calibration().unwrap();
        let expected = expected.calibration().unwrap();
        assert_eq!(got.all().count(), expected.all().count());
        for (score, expected) in expected.all() {
            let got = got.scores(score).unwrap();
            assert!(got.values().iter().zip(expected.values()).all(|(a, b)| (a / b - 1.0).abs() < 1e-4), "{score:?}");
        }
    }

    #[test]
    fn recalibration_passes_errors_on() {
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        assert_eq!(recalibrate(&file, Device::Cpu, std::iter::empty::<Result<Pixels>>()).unwrap(), file);
        let batches = [Ok(images(&file)), Err(Error::Cancelled)];
        assert!(matches!(recalibrate(&file, Device::Cpu, batches.into_iter()), Err(Error::Cancelled)));
        assert!(matches!(recalibrate(&file, Device::Cpu, [Ok(vec![0.0])].into_iter()), Err(Error::Data(_))));
    }
}
