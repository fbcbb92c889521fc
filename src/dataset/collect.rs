//! Reading columns of images into a dataset, a chunk of rows at a time.

use std::ops::Range;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::DatasetBuilder;
use super::rows::{INDEX_BYTES, Row, image_key};
use crate::backbone::FeatureExtractor;
use crate::config::InputChoice;
use crate::error::{Error, Result};
use crate::image::{Image, ImageColumn, ImageShape, Limits, Preprocess};

/// The most rows that are decoded at a time: memory is asked for before each of these chunks.
const CHUNK: usize = 256;
/// The most bytes of a chunk as floats, unless one image has more.
const CHUNK_BYTES: usize = 8 << 20;
/// The most bytes of the features of a chunk, unless one image has more.
const FEATURE_BYTES: usize = 64 << 20;
/// The most images that are decoded for a pretrained network at a time. Each is resized as soon as it is decoded.
pub const IMAGES_SEEN: usize = 32;

impl DatasetBuilder {
    /// Decodes a column in parallel and keeps its images, resized and cropped where the options say so; of images that
    /// a pretrained network sees, its features, each computed once.
    ///
    /// Grey images among RGB ones become RGB, which loses nothing; a pretrained network takes RGB images alone.
    ///
    /// # Errors
    /// [`Error::Row`] for an image that cannot be read, and for one of another size than those before it;
    /// [`Error::Type`] if features are to be trained on, and the column was not read as such, or the other way round;
    /// [`Error::Resources`] if memory is refused and so is a file; [`Error::Io`] if the file cannot be written;
    /// [`Error::Cancelled`] within a few images once the flag of [`Self::cancelled_by`] is set; and those of
    /// [`TrainOptions::extractor`](crate::TrainOptions::extractor).
    pub fn push(&mut self, column: &ImageColumn) -> Result<()> {
        let features = self.options.row_input() == InputChoice::Features;
        if features != column.holds_features() && (0..column.len()).any(|row| !column.is_null(row)) {
            let (expected, got) = if features { ("features", "images") } else { ("images", "features") };
            return Err(Error::Type(format!("the column was read as {got}, expected {expected} as the options say")));
        }
        if self.extractor.is_none() {
            self.extractor = self.options.extractor()?;
        }
        let mut start = 0;
        while start < column.len() {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let end = (start + self.chunk()).min(column.len());
            self.push_rows(column, start..end)?;
            start = end;
        }
        Ok(())
    }

    /// The number of rows to decode next, from the size of the first image: images of another size are not kept.
    fn chunk(&self) -> usize {
        let size = |bytes: usize, shape: ImageShape| bytes / (size_of::<f32>() * shape.len());
        match &self.extractor {
            Some(extractor) => size(FEATURE_BYTES, extractor.shape()).clamp(1, IMAGES_SEEN),
            None => self.rows.shape().map_or(1, |shape| size(CHUNK_BYTES, shape)).clamp(1, CHUNK),
        }
    }

    fn push_rows(&mut self, column: &ImageColumn, rows: Range<usize>) -> Result<()> {
        let shape = self.extractor.as_ref().map(FeatureExtractor::shape).or(self.rows.shape());
        let values = shape.map_or(0, ImageShape::len) * rows.len();
        let reserved = values * size_of::<f32>() + rows.len() * INDEX_BYTES;
        let before = self.rows.len();
        self.rows.store_mut().reserve(reserved)?;
        let read = match &self.extractor {
            Some(extractor) => {
                let read = self.features(column, rows, extractor)?;
                self.seen += read.iter().filter(|(_, row)| matches!(row, Some(Ok(_)))).count() as u64;
                read
            }
            None => self.images(column, rows),
        };
        for (row, image) in read {
            match image {
                None => self.skipped += 1,
                Some(Err(error)) if self.skip_unreadable => {
                    if !std::mem::replace(&mut self.warned, true) {
                        log::warn!("an image to train on cannot be read and is skipped, and so may be others: {error}");
                    }
                    self.skipped += 1;
                }
                Some(image) => self.keep(&image?, row)?,
            }
        }
        let kept = (self.rows.len() - before) * INDEX_BYTES;
        self.rows.store_mut().release(reserved - kept);
        Ok(())
    }

    /// Each row with its image.
    fn images(&self, column: &ImageColumn, rows: Range<usize>) -> Vec<(usize, Option<Result<Row>>)> {
        let decode = Decode { column, preprocess: self.options.preprocess.as_ref(), limits: &self.limits };
        let expected = self.shape();
        let seed = self.options.seed;
        let row = |row: usize| decode.row(row).map(|image| Ok(Row::new(&image?, expected, seed)));
        rows.into_par_iter().map(|i| (i, row(i))).collect()
    }

    /// Each row with the features of its image.
    fn features(
        &self,
        column: &ImageColumn,
        rows: Range<usize>,
        extractor: &FeatureExtractor,
    ) -> Result<Vec<(usize, Option<Result<Row>>)>> {
        let limits = self.limits;
        let seed = self.options.seed;
        // The image's hash, not the features': another device rounds those in another way.
        let image = |row: usize| {
            let image = extractor.image(column, row, &limits).map_err(|e| e.in_row(row))?;
            let key = image_key(&image, seed);
            Ok((image, key))
        };
        let decode = |row: usize| (row, (!column.is_null(row)).then(|| image(row)));
        let decoded: Vec<_> = rows.into_par_iter().map(decode).collect();
        let mut read = Vec::with_capacity(decoded.len());
        let mut images = Vec::new();
        let mut seen = Vec::new();
        for (row, image) in decoded {
            match image {
                Some(Ok((image, key))) => {
                    seen.push((row, key));
                    images.push(image);
                }
                Some(Err(error)) => read.push((row, Some(Err(error)))),
                None => read.push((row, None)),
            }
        }
        let shape = extractor.shape();
        let features = extractor.features_of_resized(&images).map_err(|e| match e {
            Error::Row { row, source } => source.in_row(seen.get(row).map_or(row, |(row, _)| *row)),
            e => e,
        })?;
        let features = features.chunks_exact(shape.len()).zip(seen);
        read.extend(features.map(|(features, (row, key))| (row, Some(Ok(Row::of_features(shape, features, key))))));
        Ok(read)
    }

    pub(super) fn keep(&mut self, image: &Row, row: usize) -> Result<()> {
        self.rows.push(image).map_err(|error| match error {
            Error::Data(_) => error.in_row(row),
            error => error,
        })
    }
}

/// The decoder of a column's rows.
struct Decode<'a> {
    column: &'a ImageColumn,
    preprocess: Option<&'a Preprocess>,
    limits: &'a Limits,
}

impl Decode<'_> {
    /// A row's image; `None` where it is NULL.
    fn row(&self, row: usize) -> Option<Result<Image>> {
        if self.column.is_null(row) {
            return None;
        }
        let image = self.column.image(row, None, self.limits).and_then(|image| match self.preprocess {
            Some(preprocess) => preprocess.apply(image),
            None => Ok(image),
        });
        Some(image.map_err(|e| e.in_row(row)))
    }
}
