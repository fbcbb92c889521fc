//! Decoded images: random access, seeded shuffles, held-out split.
use crate::{
    config::TrainOptions,
    error::Result,
    image::{ImageColumn, ImageShape, Limits},
};

/// Collects the images of a source, in any order and from any number of columns.
#[derive(Debug)]
pub struct DatasetBuilder {}
impl DatasetBuilder {
    /// `null_on_error`: an unreadable image is skipped and counted rather than an error.
    pub fn new(options: &TrainOptions, limits: Limits, null_on_error: bool) -> Self {
        let _ = (options, limits, null_on_error);
        unimplemented!()
    }
    /// Decodes a column in parallel and keeps its images; NULLs are skipped and counted.
    pub fn push(&mut self, column: &ImageColumn) -> Result<()> {
        let _ = column;
        unimplemented!()
    }
    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        0
    }
    /// Splits; fails when fewer than two training rows came.
    pub fn finish(self) -> Result<Dataset> {
        unimplemented!()
    }
}
/// Images split into training and held-out rows.
#[derive(Debug)]
pub struct Dataset {}
impl Dataset {
    /// Shape as it came (before nothing else: preprocess is applied on push).
    pub fn shape(&self) -> ImageShape {
        unimplemented!()
    }
}
