//! Parts of an image: a box cut out, and the tiles that cover all of it.

use super::{Image, ImageShape, Pixels};
use crate::error::{Error, Result};

/// The box of `height` × `width` pixels whose first pixel is at row `y`, column `x`.
///
/// # Errors
/// [`Error::Config`] if the box is empty, or not within the image.
///
/// # Example
/// ```
/// use wae_core::image::{Image, ImageShape, Pixels, crop};
///
/// let image = Image::try_new(ImageShape::new(2, 3, 1), Pixels::U8(vec![1, 2, 3, 4, 5, 6]))?;
/// assert_eq!(crop(&image, (0, 1), (2, 2))?.pixels(), &Pixels::U8(vec![2, 3, 5, 6]));
/// assert!(crop(&image, (1, 1), (2, 2)).is_err());
/// # Ok::<(), wae_core::Error>(())
/// ```
pub fn crop(image: &Image, (y, x): (usize, usize), (height, width): (usize, usize)) -> Result<Image> {
    let source = image.shape();
    let within = |first: usize, length: usize, side: usize| {
        length > 0 && first.checked_add(length).is_some_and(|end| end <= side)
    };
    if !within(y, height, source.height()) || !within(x, width, source.width()) {
        return Err(Error::Config(format!(
            "the box of {height} × {width} pixels at y {y}, x {x} is not within the image of shape {source}"
        )));
    }
    let shape = ImageShape::new(height, width, source.channels());
    let mut pixels = image.pixels().none();
    append_part(image, shape, (y, x), &mut pixels);
    Image::try_new(shape, pixels)
}

/// The places of tiles in an image: one every `stride` pixels, and the last ones end at the border.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileGrid {
    size: (usize, usize),
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl TileGrid {
    /// The tiles of `size` (height, width) of an image of a shape, `stride` (down, to the right) apart. They cover it
    /// unless the stride is larger than the size, which leaves pixels between them out.
    ///
    /// # Errors
    /// [`Error::Config`] if a side of the size or of the stride is 0; [`Error::Data`] if the image is smaller than a
    /// tile.
    ///
    /// # Example
    /// ```
    /// use wae_core::image::{ImageShape, TileGrid};
    ///
    /// let grid = TileGrid::try_new(ImageShape::new(4, 10, 3), (4, 4), (4, 4))?;
    /// assert_eq!(grid.places().collect::<Vec<_>>(), [(0, 0), (0, 4), (0, 6)]);
    /// # Ok::<(), wae_core::Error>(())
    /// ```
    pub fn try_new(image: ImageShape, size: (usize, usize), stride: (usize, usize)) -> Result<Self> {
        for (name, sides) in [("size", size), ("stride", stride)] {
            if sides.0 == 0 || sides.1 == 0 {
                return Err(Error::Config(format!("{name} must be at least 1 × 1, got {} × {}", sides.0, sides.1)));
            }
        }
        if size.0 > image.height() || size.1 > image.width() {
            return Err(Error::Data(format!(
                "an image of shape {image} is smaller than a tile of {} × {} pixels, expected a smaller size, or an \
                 image made larger by image_resize(image, height, width)",
                size.0, size.1
            )));
        }
        let rows = starts(image.height(), size.0, stride.0);
        let columns = starts(image.width(), size.1, stride.1);
        Ok(Self { size, rows, columns })
    }

    /// Number of tiles.
    pub fn len(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// Always false: an image has at least one tile.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The row and the column of each tile's first pixel, row by row.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.rows.iter().flat_map(|y| self.columns.iter().map(move |x| (*y, *x)))
    }

    /// The values of all tiles of an image, one tile after another.
    ///
    /// # Errors
    /// [`Error::Data`] if the image is smaller than the one that the grid was made for; [`Error::Resources`] if memory
    /// has no room for the tiles.
    pub fn cut(&self, image: &Image) -> Result<Pixels> {
        let (height, width) = self.size;
        let source = image.shape();
        let last = |starts: &[usize]| starts.last().copied().unwrap_or_default();
        if last(&self.rows) + height > source.height() || last(&self.columns) + width > source.width() {
            return Err(Error::Data(format!("an image of shape {source} is smaller than its grid of tiles")));
        }
        let shape = ImageShape::new(height, width, source.channels());
        let mut values = image.pixels().none();
        let count = self.len().saturating_mul(shape.len());
        if count > i32::MAX as usize || !values.reserve(count) {
            return Err(Error::Resources(format!(
                "the {} tiles of {height} × {width} of an image of shape {source} do not fit in memory, expected a \
                 larger stride",
                self.len()
            )));
        }
        self.places().for_each(|place| append_part(image, shape, place, &mut values));
        Ok(values)
    }
}

/// The first pixel of each tile along a side that is at least as long as a tile.
fn starts(side: usize, tile: usize, stride: usize) -> Vec<usize> {
    let last = side - tile;
    (0..last).step_by(stride).chain([last]).collect()
}

/// Appends the values of a part that lies within an image; values of the other kind stay as they are.
fn append_part(image: &Image, shape: ImageShape, place: (usize, usize), out: &mut Pixels) {
    let source = image.shape();
    match (image.pixels(), out) {
        (Pixels::U8(values), Pixels::U8(out)) => append_rows(values, source, shape, place, out),
        (Pixels::F32(values), Pixels::F32(out)) => append_rows(values, source, shape, place, out),
        _ => {}
    }
}

/// Appends the values of a `shape` out of those of `source`, from a row and a column on; it lies within the source.
fn append_rows<T: Copy>(
    values: &[T],
    source: ImageShape,
    shape: ImageShape,
    (top, left): (usize, usize),
    out: &mut Vec<T>,
) {
    let row = source.width() * source.channels();
    let length = shape.width() * shape.channels();
    out.reserve(shape.len());
    for values in values.chunks_exact(row).skip(top).take(shape.height()) {
        out.extend_from_slice(&values[left * source.channels()..][..length]);
    }
}

/// The values of a `shape` out of those of `source`, from a row and a column on; it lies within the source.
pub(crate) fn crop_rows<T: Copy>(values: &[T], source: ImageShape, shape: ImageShape, place: (usize, usize)) -> Vec<T> {
    let mut out = Vec::new();
    append_rows(values, source, shape, place, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::divides(8, 4, 4, &[0, 4])]
    #[case::border(10, 4, 4, &[0, 4, 6])]
    #[case::one(4, 4, 4, &[0])]
    #[case::overlap(7, 4, 2, &[0, 2, 3])]
    #[case::apart(9, 2, 5, &[0, 5, 7])]
    fn the_last_tile_ends_at_the_border(
        #[case] side: usize,
        #[case] tile: usize,
        #[case] stride: usize,
        #[case] expected: &[usize],
    ) {
        assert_eq!(starts(side, tile, stride), expected);
    }

    #[rstest]
    #[case((0, 0), (3, 4))]
    #[case((2, 0), (1, 5))]
    #[case((0, 5), (1, 1))]
    #[case((0, 0), (0, 1))]
    #[case((usize::MAX, 0), (1, 1))]
    fn a_box_outside_is_an_error(#[case] place: (usize, usize), #[case] size: (usize, usize)) {
        let image = Image::try_new(ImageShape::new(2, 5, 1), Pixels::U8(vec![0; 10])).unwrap();
        let error = crop(&image, place, size).unwrap_err();
        assert!(matches!(error, Error::Config(_)));
        let error = error.to_string();
        assert!(error.ends_with("is not within the image of shape [2, 5, 1]"), "{error}");
        assert!(
            error.starts_with(&format!("the box of {} × {} pixels at y {}, x {}", size.0, size.1, place.0, place.1))
        );
    }

    #[rstest]
    #[case((0, 2), (1, 1), "size must be at least 1 × 1, got 0 × 2")]
    #[case((2, 2), (1, 0), "stride must be at least 1 × 1, got 1 × 0")]
    #[case((3, 2), (1, 1), "an image of shape [2, 5, 1] is smaller than a tile of 3 × 2 pixels, expected a smaller size")]
    fn grids_that_are_none(#[case] size: (usize, usize), #[case] stride: (usize, usize), #[case] message: &str) {
        let error = TileGrid::try_new(ImageShape::new(2, 5, 1), size, stride).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn too_many_tiles_are_refused() {
        let image = Image::try_new(ImageShape::new(3000, 3000, 1), Pixels::U8(vec![0; 9_000_000])).unwrap();
        let grid = TileGrid::try_new(image.shape(), (500, 500), (1, 1)).unwrap();
        let error = grid.cut(&image).unwrap_err();
        assert!(matches!(error, Error::Resources(_)));
        let error = error.to_string();
        assert!(
            error.starts_with("the 6255001 tiles of 500 × 500 of an image of shape [3000, 3000, 1] do not"),
            "{error}"
        );
    }

    proptest! {
        /// Each tile is the box at its place.
        #[test]
        fn tiles_are_boxes(
            (height, width, channels) in (1_usize..20, 1_usize..20, 1_usize..5),
            (tall, wide) in (1_usize..8, 1_usize..8),
            stride in (1_usize..9, 1_usize..9),
        ) {
            let shape = ImageShape::new(height, width, channels);
            let values = (0..shape.len()).map(|i| i as f32).collect();
            let image = Image::try_new(shape, Pixels::F32(values)).unwrap();
            let size = (tall.min(height), wide.min(width));
            let grid = TileGrid::try_new(shape, size, stride).unwrap();
            let Pixels::F32(tiles) = grid.cut(&image).unwrap() else { panic!("floats") };
            let boxes: Vec<f32> = grid.places().flat_map(|place| match crop(&image, place, size).unwrap().pixels() {
                Pixels::F32(values) => values.clone(),
                Pixels::U8(_) => panic!("floats"),
            }).collect();
            prop_assert_eq!(&tiles, &boxes);
            // With strides no longer than a tile, every value is in some tile.
            if stride.0 <= size.0 && stride.1 <= size.1 {
                prop_assert!((0..shape.len()).all(|i| tiles.contains(&(i as f32))));
            }
        }
    }
}
