//! The shape of the images in lists.

use crate::error::{Error, Result};
use crate::image::axes::{Axes, Layout};
use crate::image::meaning::Meaning;
use crate::image::storage::Lists;
use crate::image::tensor::{check_length, unknown_shape};
use crate::image::{Image, ImageShape, ImageType, Pixels};

/// The source of the shape of a list's image.
#[derive(Debug)]
pub(super) enum Form {
    /// One shape for the column.
    Fixed(Layout),
    /// The lengths of the nested lists.
    Nested(Axes),
    /// A column of its own.
    Variable { axes: Axes, sizes: Lists },
}

/// The layout of flat lists whose type says no shape.
pub(super) fn flat_layout(image_type: &ImageType, shape: Option<ImageShape>) -> Result<Layout> {
    let shape = shape.ok_or_else(unknown_shape)?;
    Ok(Layout::ordered(shape, image_type.flat_order(shape)?))
}

impl Form {
    /// Shapes the values of row `index`, whose nested lists have these lengths.
    pub(super) fn image(&self, index: usize, lengths: &[usize], pixels: Pixels, meaning: Meaning) -> Result<Image> {
        let layout = match self {
            Self::Fixed(layout) => *layout,
            Self::Nested(_) if lengths.contains(&0) => {
                let row = meaning.row();
                let values = meaning.value();
                return Err(Error::Data(format!("{row} in lists of {lengths:?} has no {values}s")));
            }
            Self::Nested(axes) => row_layout(*axes, lengths, meaning)?,
            Self::Variable { axes, sizes } => {
                let sizes = sizes.sizes(index);
                let bad = || Error::Data("the shape of a tensor has a null or negative size".to_owned());
                row_layout(*axes, &sizes.ok_or_else(bad)?, meaning)?
            }
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

/// The layout of one row's image, whose stored axes have these sizes.
fn row_layout(axes: Axes, sizes: &[usize], meaning: Meaning) -> Result<Layout> {
    let axes = axes.of_rank(sizes.len())?;
    let layout = axes.layout(sizes)?;
    let shape = layout.shape();
    axes.check([shape.height(), shape.width(), shape.channels()].map(Some), meaning).map_err(Error::Data)?;
    Ok(layout)
}
