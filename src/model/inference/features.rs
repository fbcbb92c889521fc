//! Models with a pretrained network: from images to what the model sees, and from its places to pixels.

use super::Wae;
use crate::backbone::FeatureExtractor;
use crate::dataset::IMAGES_SEEN;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::model::scoring_memory;

/// The part of a place's value that each of its pixels gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All of it.
    Repeated,
    /// The same share, so that the sum stays.
    Divided,
}

impl Wae {
    /// The pretrained network with the model's layers; none of a model of images or of features, and none where the
    /// file names its weights and they were not given
    /// ([`ModelFile::with_backbone`](crate::ModelFile::with_backbone)).
    pub fn extractor(&self) -> Option<&FeatureExtractor> {
        self.extractor.as_ref()
    }

    /// Images as a model with a pretrained network sees them: cropped and resized, through the network, and whitened.
    ///
    /// # Shapes
    /// N images of any size and three channels → (N, H, W, C), as [`Self::encode`] takes it.
    ///
    /// # Errors
    /// [`Error::Model`] if the model has no such network, or names one that was not given; and those of
    /// [`FeatureExtractor::features`].
    pub fn whitened_features(&self, images: Vec<Image>) -> Result<Vec<f32>> {
        match (&self.extractor, &self.whitening) {
            (Some(extractor), Some(whitening)) => Ok(whitening.apply(&extractor.features(images)?)),
            _ => Err(Error::Model(match self.config.backbone() {
                Some(backbone) => format!(
                    "the model sees images by the pretrained network '{}' of sha256 {}, which its file does not hold, \
                     and which was not given beside it",
                    backbone.name, backbone.sha256
                ),
                None => "the model sees images by no pretrained network".to_owned(),
            })),
        }
    }

    /// Bytes for a pass of `rows` images through the model, and for its results, as
    /// [`scoring_memory`](crate::model::scoring_memory) counts them; with a pretrained network, also for that at work
    /// and for maps of its images' size.
    pub fn scoring_memory(&self, rows: usize) -> usize {
        let memory = scoring_memory(&self.config, rows);
        let Some(extractor) = &self.extractor else { return memory };
        let (height, width) = extractor.size();
        let maps = rows.saturating_mul(height * width * size_of::<f32>());
        memory.saturating_add(maps).saturating_add(extractor.working_memory(rows.min(IMAGES_SEEN)))
    }

    /// Maps of places, (N, h, w), at the size of a map, (N, H, W): pixel y belongs to place ⌊y·h/H⌋.
    pub(super) fn at_map_size(&self, maps: Vec<f32>, share: Share) -> Vec<f32> {
        let places = (self.config.image().height(), self.config.image().width());
        let size = self.config.map_size();
        if places == size {
            return maps;
        }
        let rows = places_of_pixels(places.0, size.0);
        let columns = places_of_pixels(places.1, size.1);
        let count = |of: &[usize], place: usize| of.iter().filter(|other| **other == place).count().max(1) as f32;
        let mut shares = Vec::new();
        if share == Share::Divided {
            let heights: Vec<f32> = (0..places.0).map(|place| count(&rows, place)).collect();
            let widths: Vec<f32> = (0..places.1).map(|place| count(&columns, place)).collect();
            shares = heights.iter().flat_map(|height| widths.iter().map(move |width| height * width)).collect();
        }
        let mut pixels = Vec::with_capacity(maps.len() / (places.0 * places.1).max(1) * size.0 * size.1);
        for map in maps.chunks_exact(places.0 * places.1) {
            for row in &rows {
                let at = |column: &usize| row * places.1 + column;
                match share {
                    Share::Repeated => pixels.extend(columns.iter().map(|column| map[at(column)])),
                    Share::Divided => pixels.extend(columns.iter().map(|column| map[at(column)] / shares[at(column)])),
                }
            }
        }
        pixels
    }
}

/// The place of each pixel along a side: ⌊y·h/H⌋.
fn places_of_pixels(places: usize, pixels: usize) -> Vec<usize> {
    (0..pixels).map(|pixel| pixel * places / pixels).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_by_hand() {
        assert_eq!(places_of_pixels(2, 5), [0, 0, 0, 1, 1]);
        assert_eq!(places_of_pixels(3, 3), [0, 1, 2]);
        assert_eq!(places_of_pixels(1, 2), [0, 0]);
    }
}
