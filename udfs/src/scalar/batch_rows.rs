//! The images of a batch: read for a network some rows at a time, or each computed by itself.

use std::ops::Range;

use arrow::buffer::NullBuffer;
use datafusion::common::Result;
use rayon::prelude::*;
use wae_core::image::PixelSlice;
use wae_core::{ImageColumn, Wae};

use crate::error::{Place, Unreadable, exec_error, row_error};
use crate::scalar::args::Batch;
use crate::scalar::image_argument::read_for;
use crate::scalar::image_reader::ImageReader;

impl Batch<'_> {
    /// Reads the images of the first argument, `wae.batch_size` rows at a time, and tells which rows have one.
    ///
    /// `compute` takes rows and their pixels, (N, H, W, C). NULL rows, and unreadable ones under
    /// `wae.on_error = null`, are left out.
    pub(super) fn for_images(
        &self,
        mut compute: impl FnMut(&Wae, &[usize], PixelSlice<'_>) -> wae_core::Result<()>,
    ) -> Result<NullBuffer> {
        let model = self.model()?;
        let mut valid = vec![false; self.rows()];
        let mut unreadable = Unreadable::default();
        let config = model.wae().config();
        let Some(column) = self.images(|field, array| read_for(config, field, array))? else { return Ok(valid.into()) };
        let reader = ImageReader {
            function: self.function(),
            model: model.name(),
            config,
            whitening: model.wae().whitening(),
            extractor: model.wae().extractor(),
            options: self.options(),
            paths: self.paths(),
        };
        let present: Vec<usize> = (0..column.len()).filter(|row| !column.is_null(*row)).collect();
        for rows in present.chunks(self.options().batch_size()) {
            let (rows, pixels) = reader.read(&column, rows, &mut unreadable)?;
            if rows.is_empty() {
                continue;
            }
            compute(model.wae(), &rows, (&pixels).into()).map_err(|e| exec_error(self.function(), &e))?;
            rows.iter().for_each(|row| valid[*row] = true);
        }
        unreadable.warn(self.function(), present.len(), Some(model.name()));
        Ok(valid.into())
    }

    /// Computes each row's image by itself, in parallel. NULL rows, and those that cannot be read under
    /// `wae.on_error = null`, give `None`.
    pub(crate) fn map_rows<T: Send>(
        &self,
        column: &ImageColumn,
        compute: impl Fn(usize) -> wae_core::Result<T> + Sync,
    ) -> Result<Vec<Option<T>>> {
        let mut unreadable = Unreadable::default();
        let values = self.map_some(column, 0..column.len(), &compute, &mut unreadable)?;
        let images = (0..column.len()).filter(|row| !column.is_null(*row)).count();
        unreadable.warn(self.function(), images, None);
        Ok(values)
    }

    /// As [`Self::map_rows`], `at_a_time` rows at a time, so that what is computed of the others need not be in memory:
    /// `take` gets the rows that have a value, and their values.
    pub(crate) fn map_chunks<T: Send>(
        &self,
        column: &ImageColumn,
        at_a_time: usize,
        compute: impl Fn(usize) -> wae_core::Result<T> + Sync,
        mut take: impl FnMut(&[usize], Vec<T>) -> Result<()>,
    ) -> Result<()> {
        let mut unreadable = Unreadable::default();
        for first in (0..column.len()).step_by(at_a_time) {
            let rows = first..(first + at_a_time).min(column.len());
            let values = self.map_some(column, rows.clone(), &compute, &mut unreadable)?;
            let (rows, values): (Vec<_>, Vec<_>) =
                rows.zip(values).filter_map(|(row, value)| value.map(|value| (row, value))).unzip();
            take(&rows, values)?;
        }
        let images = (0..column.len()).filter(|row| !column.is_null(*row)).count();
        unreadable.warn(self.function(), images, None);
        Ok(())
    }

    /// Computes the images of some rows, and counts those that cannot be read.
    fn map_some<T: Send>(
        &self,
        column: &ImageColumn,
        rows: Range<usize>,
        compute: &(impl Fn(usize) -> wae_core::Result<T> + Sync),
        unreadable: &mut Unreadable,
    ) -> Result<Vec<Option<T>>> {
        let computed = rows.clone().into_par_iter().map(|row| (!column.is_null(row)).then(|| compute(row)));
        let computed: Vec<_> = computed.collect();
        let place = |row| Place::of_image(row, column, self.paths());
        // In order, so that of several errors the first row's is reported, not the first found.
        let values = rows.zip(computed).map(|(row, computed)| match computed.transpose() {
            Ok(value) => Ok(value),
            Err(e) if self.options().forgives(&e) => {
                unreadable.push(place(row), e);
                Ok(None)
            }
            Err(e) => Err(row_error(self.function(), place(row), e)),
        });
        values.collect()
    }
}
