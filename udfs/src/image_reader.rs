//! Reading rows of images as a model takes them, and what becomes of those that cannot be read.

use datafusion::common::{DataFusionError, Result};
use rayon::prelude::*;
use wae_core::image::Pixels;
use wae_core::{Config, Error, ImageColumn};

use crate::error::{Unreadable, exec_error, row_error, shape_mismatch};
use crate::options::WaeOptions;

/// Reads images for a model, preprocessed as it was trained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageReader<'a> {
    /// The function's name, for messages.
    pub(crate) function: &'a str,
    /// The model's name, for messages.
    pub(crate) model: &'a str,
    /// The model's configuration.
    pub(crate) config: &'a Config,
    /// The session's options.
    pub(crate) options: &'a WaeOptions,
}

impl ImageReader<'_> {
    /// Reads rows as (N, H, W, C), as bytes where the images are bytes: all of them, or those that can be read under
    /// `wae.on_error = null`.
    pub(crate) fn read(
        &self,
        column: &ImageColumn,
        rows: &[usize],
        unreadable: &mut Unreadable,
    ) -> Result<(Vec<usize>, Pixels)> {
        let (config, limits) = (self.config, self.options.limits());
        let read = |rows: &[usize]| column.read_pixels(rows, config.image(), config.preprocess(), &limits);
        match read(rows) {
            Ok(pixels) => return Ok((rows.to_vec(), pixels)),
            Err(e) if self.options.forgives(&e) => {}
            Err(e) => return Err(self.error(&e, column)),
        }
        let errors: Vec<_> = rows.par_iter().map(|row| read(&[*row]).err()).collect();
        let mut readable = Vec::new();
        for (&row, error) in rows.iter().zip(errors) {
            match error {
                None => readable.push(row),
                Some(e) if self.options.forgives(&e) => unreadable.push(row, self.reason(&e, row, column)),
                Some(e) => return Err(self.error(&e, column)),
            }
        }
        let pixels = read(&readable).map_err(|e| self.error(&e, column))?;
        Ok((readable, pixels))
    }

    fn error(&self, error: &Error, column: &ImageColumn) -> DataFusionError {
        match error {
            Error::Row { row, .. } => row_error(self.function, *row, self.reason(error, *row, column)),
            _ => exec_error(self.function, error),
        }
    }

    /// What is wrong with a row's image, without the row.
    fn reason(&self, error: &Error, row: usize, column: &ImageColumn) -> String {
        match error {
            Error::Row { source, .. } => self.reason(source, row, column),
            Error::Shape { expected, got } => {
                let own = match self.config.preprocess() {
                    // The channels were made to fit before the shape was checked: the image itself may have others.
                    None => column.image(row, None, &self.options.limits()).map_or(*got, |image| image.shape()),
                    Some(_) => *got,
                };
                shape_mismatch(own, self.model, *expected)
            }
            error => error.to_string(),
        }
    }
}
