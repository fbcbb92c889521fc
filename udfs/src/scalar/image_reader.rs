//! Reading rows of images as a model takes them, and what becomes of those that cannot be read.

use arrow::array::ArrayRef;
use datafusion::common::{DataFusionError, Result, exec_err, internal_err};
use rayon::prelude::*;
use wae_core::backbone::FeatureExtractor;
use wae_core::dataset::IMAGES_SEEN;
use wae_core::image::Pixels;
use wae_core::{Config, Error, ImageColumn, Whitening};

use crate::error::{Place, Unreadable, exec_error, row_error, shape_mismatch};
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
    /// The whitening of a model of features.
    pub(crate) whitening: Option<&'a Whitening>,
    /// The pretrained network that a model sees images by.
    pub(crate) extractor: Option<&'a FeatureExtractor>,
    /// The session's options.
    pub(crate) options: &'a WaeOptions,
    /// The paths of the images' files, where a column beside them has these.
    pub(crate) paths: Option<&'a ArrayRef>,
}

impl ImageReader<'_> {
    /// Reads rows as (N, H, W, C), as bytes where the images are bytes: all of them, or those that can be read under
    /// `wae.on_error = null`. Features are whitened, those of images by a pretrained network too.
    pub(crate) fn read(
        &self,
        column: &ImageColumn,
        rows: &[usize],
        unreadable: &mut Unreadable,
    ) -> Result<(Vec<usize>, Pixels)> {
        let (rows, pixels) = match (self.config.backbone(), self.extractor) {
            (Some(_), Some(extractor)) => self.read_features(extractor, column, rows, unreadable)?,
            (Some(backbone), None) => {
                return exec_err!("{}: the network '{}' of the model is missing", self.function, backbone.name);
            }
            (None, _) => self.read_source(column, rows, unreadable)?,
        };
        match (self.whitening, pixels) {
            (Some(whitening), Pixels::F32(features)) => Ok((rows, Pixels::F32(whitening.apply(&features)))),
            (_, pixels) => Ok((rows, pixels)),
        }
    }

    /// Reads rows as they come, but for preprocessing.
    fn read_source(
        &self,
        column: &ImageColumn,
        rows: &[usize],
        unreadable: &mut Unreadable,
    ) -> Result<(Vec<usize>, Pixels)> {
        let config = self.config;
        let limits = self.options.limits();
        let read = |rows: &[usize]| column.read_pixels(rows, config.source(), config.preprocess(), &limits);
        match read(rows) {
            Ok(pixels) => return Ok((rows.to_vec(), pixels)),
            Err(e) if self.options.forgives(&e) => {}
            Err(e) => return Err(self.error(&e, column)),
        }
        // Once more, each row by itself.
        let images: Vec<_> = rows.par_iter().map(|row| read(&[*row])).collect();
        let mut readable = Vec::new();
        let mut pixels = read(&[]).map_err(|e| self.error(&e, column))?;
        for (&row, image) in rows.iter().zip(images) {
            match image {
                Ok(image) => {
                    readable.push(row);
                    match (&mut pixels, image) {
                        (Pixels::U8(pixels), Pixels::U8(image)) => pixels.extend(image),
                        (Pixels::F32(pixels), Pixels::F32(image)) => pixels.extend(image),
                        _ => return internal_err!("{}: a column was read as bytes and as floats", self.function),
                    }
                }
                Err(e) if self.options.forgives(&e) => {
                    unreadable.push(self.place(row, column), self.reason(&e, row, column));
                }
                Err(e) => return Err(self.error(&e, column)),
            }
        }
        Ok((readable, pixels))
    }

    /// The features of rows by a pretrained network, (N, h, w, C), some images at a time.
    fn read_features(
        &self,
        extractor: &FeatureExtractor,
        column: &ImageColumn,
        rows: &[usize],
        unreadable: &mut Unreadable,
    ) -> Result<(Vec<usize>, Pixels)> {
        let limits = self.options.limits();
        let mut readable = Vec::with_capacity(rows.len());
        let mut features = Vec::new();
        for rows in rows.chunks(IMAGES_SEEN) {
            let decode = |row: &usize| (*row, extractor.image(column, *row, &limits));
            let decoded: Vec<_> = rows.par_iter().map(decode).collect();
            let first = readable.len();
            let mut images = Vec::with_capacity(rows.len());
            for (row, image) in decoded {
                match image {
                    Ok(image) => {
                        readable.push(row);
                        images.push(image);
                    }
                    Err(e) if self.options.forgives(&e) => unreadable.push(self.place(row, column), e),
                    Err(e) => return Err(row_error(self.function, self.place(row, column), e)),
                }
            }
            let seen = extractor.features_of_resized(&images).map_err(|e| match e {
                Error::Row { row, source } => {
                    row_error(self.function, self.place(readable[first + row], column), source)
                }
                e => exec_error(self.function, &e),
            })?;
            features.extend(seen);
        }
        Ok((readable, Pixels::F32(features)))
    }

    fn error(&self, error: &Error, column: &ImageColumn) -> DataFusionError {
        match error {
            Error::Row { row, .. } => {
                row_error(self.function, self.place(*row, column), self.reason(error, *row, column))
            }
            _ => exec_error(self.function, error),
        }
    }

    fn place(&self, row: usize, column: &ImageColumn) -> Place {
        Place::of_image(row, column, self.paths)
    }

    /// The reason why a row's image cannot be read, without the row.
    fn reason(&self, error: &Error, row: usize, column: &ImageColumn) -> String {
        match error {
            Error::Row { source, .. } => self.reason(source, row, column),
            Error::Shape { got, .. } => {
                let own = match self.config.preprocess() {
                    // The channels were made to fit before the shape was checked: the image itself may have others.
                    None => column.image(row, None, &self.options.limits()).map_or(*got, |image| image.shape()),
                    Some(_) => *got,
                };
                shape_mismatch(own, self.model, self.config)
            }
            error => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListArray};
    use arrow::datatypes::{Field, Float32Type, UInt8Type};
    use datafusion::config::ExtensionOptions;
    use rstest::rstest;
    use wae_core::{ImageShape, TrainOptions};

    use super::*;

    const SHAPE: ImageShape = ImageShape::new(8, 8, 1);

    /// Lists of this many values, each of which is the row's number.
    fn bytes(lengths: &[usize]) -> ArrayRef {
        let rows = (0..).zip(lengths).map(|(row, len)| Some(vec![Some(row); *len]));
        Arc::new(ListArray::from_iter_primitive::<UInt8Type, _, _>(rows))
    }

    /// The same in quarters.
    fn floats(lengths: &[usize]) -> ArrayRef {
        let rows = (0_u8..).zip(lengths).map(|(row, len)| Some(vec![Some(f32::from(row) / 4.0); *len]));
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows))
    }

    fn read(array: &ArrayRef, on_error: &str) -> Result<(Vec<usize>, Pixels)> {
        let column =
            ImageColumn::try_new(&Field::new("image", array.data_type().clone(), true), array, Some(SHAPE)).unwrap();
        let config = TrainOptions::try_from_options([("network", "4".into())]).unwrap().config(SHAPE).unwrap();
        let mut options = WaeOptions::default();
        options.set("on_error", on_error).unwrap();
        let reader = ImageReader {
            function: "f",
            model: "m",
            config: &config,
            whitening: None,
            extractor: None,
            options: &options,
            paths: None,
        };
        let rows: Vec<usize> = (0..column.len()).collect();
        reader.read(&column, &rows, &mut Unreadable::default())
    }

    #[rstest]
    #[case::first(&[5, 64, 64], &[1, 2])]
    #[case::within(&[64, 5, 64, 5, 64], &[0, 2, 4])]
    #[case::none_is_left(&[5, 5], &[])]
    #[case::all_are(&[64, 64], &[0, 1])]
    fn rows_that_cannot_be_read_are_left_out(#[case] lengths: &[usize], #[case] readable: &[u8]) {
        let rows: Vec<usize> = readable.iter().copied().map(usize::from).collect();
        let values: Vec<u8> = readable.iter().flat_map(|row| [*row; 64]).collect();
        let quarters = values.iter().map(|value| f32::from(*value) / 4.0).collect();
        assert_eq!(read(&bytes(lengths), "null").unwrap(), (rows.clone(), Pixels::U8(values)));
        assert_eq!(read(&floats(lengths), "null").unwrap(), (rows, Pixels::F32(quarters)));
    }

    #[test]
    fn the_first_that_cannot_be_read_is_named() {
        let error = read(&bytes(&[64, 5, 64, 3]), "error").unwrap_err().strip_backtrace();
        assert!(error.contains("f: row 1 of the batch:"), "{error}");
    }
}
