//! Functions from images to image tensors: the type of the result, and the images of a batch.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::Result;
use wae_core::ImageColumn;
use wae_core::image::Image;

use crate::error::plan_error;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::tensors::{Size, TensorForm, Tensors};

/// Images that are made at a time, before they are put into their column.
const IMAGES: usize = 64;

impl PlannedArgs<'_> {
    /// The form of tensors that are made from the image: what the image's own field tells of it, since the result's
    /// type must not change when planning looks for the image's.
    pub(crate) fn tensor_form(&self) -> Result<TensorForm> {
        let Some(image) = self.image() else { return Ok(TensorForm::BYTES) };
        let without = self.has_lost_type().then(|| Field::new(image.name(), image.data_type().clone(), true));
        TensorForm::of(without.as_ref().unwrap_or(image)).map_err(|e| plan_error(self.function(), &e))
    }

    /// The field of tensors made from the image, whose height and width are arguments: each has its position, and its
    /// value where that is a literal.
    pub(crate) fn tensor_field(&self, sides: [(usize, Option<i64>); 2]) -> Result<Field> {
        let size = match sides.map(|(position, side)| side.filter(|_| self.is_fixed(position))) {
            [Some(height), Some(width)] => Size::Known(height as usize, width as usize),
            _ if sides.iter().any(|(position, _)| self.is_placeholder(*position)) => Size::Prepared,
            _ => Size::PerRow,
        };
        Ok(self.tensor_form()?.field(self.function(), size))
    }
}

impl Batch<'_> {
    /// The first argument as images whose values are only moved and weighted, so that floats may have any range; `None`
    /// if it is an untyped NULL.
    pub(crate) fn images_of_numbers(&self) -> Result<Option<ImageColumn>> {
        self.images(ImageColumn::of_numbers)
    }

    /// Makes a column of tensors, an image of each row's, as [`Self::map_rows`] does.
    pub(crate) fn map_images(
        &self,
        function: &'static str,
        column: &ImageColumn,
        compute: impl Fn(usize) -> wae_core::Result<Option<Image>> + Sync,
    ) -> Result<ArrayRef> {
        let mut tensors = Tensors::new(function);
        self.map_chunks(column, IMAGES, compute, |rows, images| {
            for (row, image) in rows.iter().zip(images) {
                tensors.fill(*row);
                tensors.push(image)?;
            }
            Ok(())
        })?;
        tensors.fill(self.rows());
        tensors.finish(self.return_field())
    }
}
