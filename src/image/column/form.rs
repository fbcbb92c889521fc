//! The shape of the images in lists.

use arrow::array::{Array, Int32Array};

use crate::error::{Error, Result};
use crate::image::metadata::{Axes, Layout};
use crate::image::tensor::check_length;
use crate::image::{Image, ImageShape, Pixels};

/// The source of the shape of a list's image.
#[derive(Debug)]
pub(super) enum Form {
    /// One shape for the column.
    Fixed(Layout),
    /// The lengths of the nested lists.
    Nested,
    /// A column of its own, `rank` numbers a row.
    Variable { axes: Axes, sizes: Int32Array, rank: usize },
}

/// The layout of flat lists whose type says no shape.
pub(super) fn flat_layout(values: Option<usize>, fallback: Option<ImageShape>) -> Result<Layout> {
    let Some(shape) = fallback else {
        return Err(Error::Type(
            "the shape of the images in a flat list is unknown: give the column arrow.fixed_shape_tensor metadata, or \
             nest the lists as H×W×C"
                .to_owned(),
        ));
    };
    if let Some(values) = values {
        check_length(values, shape).map_err(Error::Type)?;
    }
    Ok(Layout::row_major(shape))
}

impl Form {
    /// Shapes the values of row `index`, whose nested lists have these lengths.
    pub(super) fn image(&self, index: usize, lengths: &[usize], pixels: Pixels) -> Result<Image> {
        let layout = match (self, lengths) {
            (Self::Fixed(layout), _) => *layout,
            (Self::Variable { axes, sizes, rank }, _) => axes.layout(&row_sizes(sizes, index, *rank)?)?,
            (Self::Nested, &[height, width, channels]) => Layout::row_major(ImageShape::new(height, width, channels)),
            (Self::Nested, &[height, width]) => Layout::row_major(ImageShape::new(height, width, 1)),
            (Self::Nested, _) => return Err(Error::Data("lists are nested too deeply for an image".to_owned())),
        };
        let shape = layout.shape();
        check_length(pixels.len(), shape).map_err(Error::Data)?;
        let pixels = match pixels {
            Pixels::U8(values) => Pixels::U8(layout.arrange(values)),
            Pixels::F32(values) => Pixels::F32(layout.arrange(values)),
        };
        Image::try_new(shape, pixels)
    }
}

/// The stored dimensions of a variable-shape tensor.
fn row_sizes(sizes: &Int32Array, index: usize, rank: usize) -> Result<Vec<usize>> {
    let range = index * rank..(index + 1) * rank;
    let size = |at: usize| (at < sizes.len() && sizes.is_valid(at)).then(|| usize::try_from(sizes.value(at)).ok());
    let read: Option<Vec<usize>> = range.map(|at| size(at).flatten()).collect();
    read.ok_or_else(|| Error::Data("the shape of a tensor has a null or negative size".to_owned()))
}
