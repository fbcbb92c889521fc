//! A model's calibration from new normal rows, without training.

use crate::calibrate::Calibration;
use crate::checkpoint::ModelFile;
use crate::error::Result;
use crate::model::Wae;

/// The model with its calibration replaced by the scores of other images; everything else stays.
///
/// The images should be normal ones that the model was not trained on, drawn as those that will be scored. Only their scores
/// are kept.
///
/// # Shapes
/// Each batch (N, H, W, C), preprocessed, values in [0, 1].
///
/// # Errors
/// Those of the batches; [`crate::Error::Data`] if there is no image, if a batch is no whole number of images, or if a score is
/// not finite.
pub fn recalibrate(file: &ModelFile, batches: impl Iterator<Item = Result<Vec<f32>>>) -> Result<ModelFile> {
    let wae = Wae::try_new(file)?;
    let mut costs = Vec::new();
    for images in batches {
        let images = images?; // (N, H, W, C)
        costs.extend(wae.costs(&images, &wae.decode(&wae.encode(&images)?)?)?);
    }
    Ok(ModelFile::new(
        file.config().clone(),
        file.tensors().clone(),
        file.history().to_vec(),
        Some(Calibration::try_new(costs)?),
        file.training().cloned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const GOLDEN: &[u8] = include_bytes!("../fixtures/golden/golden.model.safetensors");

    /// Seven images, each brighter than the one before it.
    fn images(file: &ModelFile) -> Vec<f32> {
        let len = file.config().image().len();
        (0..7 * len).map(|i| (i / len) as f32 / 7.0 + (i % 13) as f32 / 100.0).collect()
    }

    #[test]
    fn the_scores_are_the_models_and_the_rest_stays() {
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        let (images, len) = (images(&file), file.config().image().len());
        let new = recalibrate(&file, images.chunks(3 * len).map(|batch| Ok(batch.to_vec()))).unwrap();

        let wae = Wae::try_new(&file).unwrap();
        let mut costs = wae.costs(&images, &wae.decode(&wae.encode(&images).unwrap()).unwrap()).unwrap();
        costs.sort_by(f32::total_cmp);
        assert_eq!(new.calibration().unwrap().costs(), costs);
        assert_eq!((new.config(), new.tensors()), (file.config(), file.tensors()));
        // It reads back, and a second calibration replaces the first.
        let read = ModelFile::from_bytes(&new.to_bytes().unwrap()).unwrap();
        assert_eq!(read, new);
        let one = recalibrate(&read, [Ok(images[..len].to_vec())].into_iter()).unwrap();
        assert_eq!(one.calibration().unwrap().len(), 1);
    }

    #[test]
    fn nothing_and_an_error_are_refused() {
        let file = ModelFile::from_bytes(GOLDEN).unwrap();
        assert!(recalibrate(&file, std::iter::empty()).is_err());
        let batches = [Ok(images(&file)), Err(Error::Cancelled)];
        assert!(matches!(recalibrate(&file, batches.into_iter()), Err(Error::Cancelled)));
        assert!(matches!(recalibrate(&file, [Ok(vec![0.0])].into_iter()), Err(Error::Data(_))));
    }
}
