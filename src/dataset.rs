//! Decoded images with random access, in an order and a split that depend on their pixels and a seed only.
//!
//! A source's rows arrive in any order, from any number of partitions. So that training does not depend on that, rows
//! are put in the order of a seeded hash of their pixels; the first of them, a share of `holdout`, are held out for
//! calibration. Exact duplicates share a hash, so that none is trained on while its twin is held out. Only a picture
//! with more copies than rows are to be held out is divided, in the same proportion as the table.
//!
//! Images are kept in memory while [`Resources`] grants it, and in a file from then on, all of them: the same rows in
//! the same order, read at their places as they are asked for.

mod collect;
mod fingerprint;
mod preparation;
mod resources;
mod rows;
mod split;
mod store;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

pub use self::collect::IMAGES_SEEN;
pub(crate) use self::fingerprint::Fingerprint;
use self::preparation::Preparation;
pub use self::resources::{Resources, SpillFile, Unlimited};
use self::rows::{Rows, RowsWriter};
use self::split::{Split, share};
use crate::backbone::FeatureExtractor;
use crate::config::{InputChoice, TrainOptions};
use crate::error::{Error, Result};
use crate::image::{ImageShape, Limits, Pixels};
use crate::whitening::Whitening;

/// Values of features from which statistics are taken at a time: 32 MB as they are computed with.
const STATISTICS: usize = 1 << 22;

/// Collects the images of a source, in any order and from any number of columns.
#[derive(Debug)]
pub struct DatasetBuilder {
    options: TrainOptions,
    limits: Limits,
    skip_unreadable: bool,
    /// Whether the log has the first image that was skipped.
    warned: bool,
    rows: RowsWriter,
    skipped: u64,
    /// The pretrained network, once there was a column.
    extractor: Option<FeatureExtractor>,
    /// Images that it has seen.
    seen: u64,
    /// Set from outside where the collection is to stop.
    cancelled: Arc<AtomicBool>,
}

impl DatasetBuilder {
    /// An empty collection, kept in memory. With `skip_unreadable`, an image that cannot be read is skipped and counted
    /// like a NULL.
    pub fn new(options: &TrainOptions, limits: Limits, skip_unreadable: bool) -> Self {
        Self::with_resources(options, limits, skip_unreadable, Box::new(Unlimited))
    }

    /// As [`Self::new`], with the memory that is granted, then with a file.
    pub fn with_resources(
        options: &TrainOptions,
        limits: Limits,
        skip_unreadable: bool,
        resources: Box<dyn Resources>,
    ) -> Self {
        Self {
            options: options.clone(),
            limits,
            skip_unreadable,
            warned: false,
            rows: RowsWriter::new(resources, options.model_input()),
            skipped: 0,
            extractor: None,
            seen: 0,
            cancelled: Arc::default(),
        }
    }

    /// Lets a flag stop the collection, as [`Trainer::cancelled_by`](crate::Trainer::cancelled_by) does a training.
    pub fn cancelled_by(self, flag: Arc<AtomicBool>) -> Self {
        Self { cancelled: flag, ..self }
    }

    /// The shape of the images so far: grey ones become RGB with the first that is.
    pub fn shape(&self) -> Option<ImageShape> {
        self.rows.shape()
    }

    /// Rows so far that held no readable image.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Images that passed a pretrained network so far.
    pub fn images_seen(&self) -> u64 {
        self.seen
    }

    /// Moves the images to a file, if they are in memory, and gives the memory back.
    ///
    /// # Errors
    /// [`Error::Resources`] if there is no file, [`Error::Io`] if it cannot be written.
    pub fn spill(&mut self) -> Result<()> {
        self.rows.store_mut().spill()
    }

    /// Puts the rows in order and holds out a share of them; features are whitened by the others.
    ///
    /// # Errors
    /// [`Error::Data`] if fewer than two rows are left to train on, or if features do not vary, or in fewer directions
    /// than the options ask for; [`Error::Io`] if the file cannot be written.
    pub fn finish(self) -> Result<Dataset> {
        let Some(shape) = self.rows.shape() else {
            return Err(Error::Data(format!("no image to train on: {} rows were NULL or unreadable", self.skipped)));
        };
        let rows = self.rows.len();
        if u32::try_from(rows).is_err() {
            return Err(Error::Data(format!("{rows} images came, expected at most {}", u32::MAX)));
        }
        let held_out = share(rows, self.options.holdout);
        if rows < held_out + 2 {
            return Err(Error::Data(format!(
                "training needs at least 2 rows beside the held-out ones, got {rows} of which {held_out} are held out"
            )));
        }
        let (images, keys) = self.rows.finish(shape)?;
        let split = Split::new(&keys, self.options.holdout);
        split.log(self.options.holdout);
        let fingerprint = Fingerprint::of(split.order.iter().map(|row| keys[*row as usize]), split.held_out);
        let Split { order, held_out, .. } = split;
        let mut dataset = Dataset {
            images,
            order,
            held_out,
            skipped: self.skipped,
            preparation: Preparation::of(&self.options),
            fingerprint,
            whitening: None,
        };
        if dataset.preparation.input == InputChoice::Features {
            dataset.whitening = Some(dataset.fit_whitening()?);
        }
        Ok(dataset)
    }
}

/// Images split into training rows and held-out rows.
#[derive(Debug)]
pub struct Dataset {
    images: Rows,
    /// Held-out rows first, then training rows.
    order: Vec<u32>,
    held_out: usize,
    skipped: u64,
    preparation: Preparation,
    fingerprint: Fingerprint,
    /// Of features alone.
    whitening: Option<Whitening>,
}

impl Dataset {
    /// The shape of every image as the network sees it: after resizing and cropping, or whitening.
    pub fn shape(&self) -> ImageShape {
        self.whitening.as_ref().map_or(self.source(), |whitening| self.source().with_channels(whitening.components()))
    }

    /// The shape of every image, after resizing and cropping; of features, before they are whitened.
    pub fn source(&self) -> ImageShape {
        self.images.shape()
    }

    /// The whitening of features by the training rows; none of images.
    pub fn whitening(&self) -> Option<&Whitening> {
        self.whitening.as_ref()
    }

    /// The same rows, whitened as a model's features are, if they have as many channels and the options do not ask for
    /// another number of components.
    pub(crate) fn whitened_by(mut self, whitening: &Whitening) -> Self {
        let components = self.preparation.components.unwrap_or(whitening.components());
        if self.source().channels() == whitening.channels() && components == whitening.components() {
            self.whitening = self.whitening.map(|_| whitening.clone());
        }
        self
    }

    /// The whitening by the training rows, as many at a time as fit.
    fn fit_whitening(&self) -> Result<Whitening> {
        let rows = (STATISTICS / self.source().len()).max(1);
        let training = &self.order[self.held_out..];
        let blocks = || training.chunks(rows).map(|rows| self.read_source(rows));
        Whitening::fit(self.source().channels(), self.preparation.components, blocks)
    }

    /// Whether the images were prepared and split as these options say.
    pub(crate) fn was_made_with(&self, options: &TrainOptions) -> bool {
        self.preparation == Preparation::of(options)
    }

    /// The fingerprint of the images and their order.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The number of training rows.
    pub fn training_rows(&self) -> usize {
        self.order.len() - self.held_out
    }

    /// The number of held-out rows.
    pub fn held_out_rows(&self) -> usize {
        self.held_out
    }

    /// Rows of the source that held no readable image.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Training rows by position, in [0, 1]; features are whitened.
    ///
    /// # Shapes
    /// (N, H, W, C).
    ///
    /// # Errors
    /// [`Error::Io`] if the images are in a file that cannot be read.
    pub fn training(&self, rows: &[usize]) -> Result<Vec<f32>> {
        let rows: Vec<u32> = rows.iter().map(|row| self.order[self.held_out + row]).collect();
        self.read(&rows)
    }

    /// As [`Self::training`], but bytes where the rows are kept as bytes of all channels.
    pub(crate) fn training_pixels(&self, rows: &[usize]) -> Result<Pixels> {
        let rows: Vec<u32> = rows.iter().map(|row| self.order[self.held_out + row]).collect();
        self.pixels(&rows)
    }

    /// A range of held-out rows, in [0, 1]; features are whitened.
    ///
    /// # Shapes
    /// (N, H, W, C).
    ///
    /// # Errors
    /// Those of [`Self::training`].
    pub fn held_out(&self, rows: std::ops::Range<usize>) -> Result<Vec<f32>> {
        self.read(&self.order[..self.held_out][rows])
    }

    /// As [`Self::held_out`], but bytes where the rows are kept as bytes of all channels.
    pub(crate) fn held_out_pixels(&self, rows: std::ops::Range<usize>) -> Result<Pixels> {
        self.pixels(&self.order[..self.held_out][rows])
    }

    fn pixels(&self, rows: &[u32]) -> Result<Pixels> {
        if !rows.iter().all(|row| self.images.has_bytes(*row as usize)) {
            return self.read(rows).map(Pixels::F32);
        }
        let len = self.shape().len();
        let mut bytes = vec![0; rows.len() * len];
        let images = bytes.par_chunks_exact_mut(len).zip(rows);
        images.try_for_each(|(out, row)| self.images.read_bytes(*row as usize, out))?;
        Ok(Pixels::U8(bytes))
    }

    fn read(&self, rows: &[u32]) -> Result<Vec<f32>> {
        let values = self.read_source(rows)?;
        Ok(match &self.whitening {
            Some(whitening) => whitening.apply(&values),
            None => values,
        })
    }

    fn read_source(&self, rows: &[u32]) -> Result<Vec<f32>> {
        let len = self.source().len();
        let mut values = vec![0.0; rows.len() * len];
        values
            .par_chunks_exact_mut(len)
            .zip(rows)
            .try_for_each_init(Vec::new, |bytes, (out, row)| self.images.read(*row as usize, bytes, out))?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests;
