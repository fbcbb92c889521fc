//! Tiles put together again, overlaps averaged.
//!
//! ```text
//! image(p) = Σ_t tile_t(p − p_t) / #{t : p lies in tile t}
//! ```
//!
//! Where: p_t is the place of tile t's first pixel, the sum runs over the tiles that p lies in, and sums are of f64.

use super::{Image, ImageShape, Pixels};
use crate::error::{Error, Result};

/// Tiles of one shape and the places of their first pixels in an image.
///
/// # Example
/// ```
/// use wae_core::image::{Image, ImageShape, Mosaic, Pixels};
///
/// let tile = |values| Image::try_new(ImageShape::new(1, 2, 1), Pixels::U8(values));
/// let mut mosaic = Mosaic::default();
/// mosaic.push((0, 1), tile(vec![4, 9])?)?;
/// mosaic.push((0, 0), tile(vec![1, 2])?)?;
/// assert_eq!(mosaic.image()?, Some(Image::try_new(ImageShape::new(1, 3, 1), Pixels::U8(vec![1, 3, 9]))?));
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mosaic {
    tiles: Option<Tiles>,
}

/// At least one tile.
#[derive(Debug, Clone, PartialEq)]
struct Tiles {
    shape: ImageShape,
    places: Vec<(usize, usize)>,
    /// The values of each tile, all bytes or all floats. They stay where they came: one buffer would grow by copies.
    values: Vec<Pixels>,
}

impl Mosaic {
    /// The shape of the tiles, once there is one.
    pub fn shape(&self) -> Option<ImageShape> {
        self.tiles.as_ref().map(|tiles| tiles.shape)
    }

    /// The places of the tiles.
    pub fn places(&self) -> &[(usize, usize)] {
        self.tiles.as_ref().map_or(&[], |tiles| &tiles.places)
    }

    /// The values of each tile.
    pub fn values(&self) -> &[Pixels] {
        self.tiles.as_ref().map_or(&[], |tiles| &tiles.values)
    }

    /// Adds a tile whose first pixel is at a place, (row, column).
    ///
    /// # Errors
    /// [`Error::Data`] if its shape is another than that of the tiles before, or if it has floats and these have bytes.
    pub fn push(&mut self, place: (usize, usize), tile: Image) -> Result<()> {
        let shape = tile.shape();
        let tiles = self.tiles.get_or_insert_with(|| Tiles { shape, places: Vec::new(), values: Vec::new() });
        if shape != tiles.shape {
            return Err(Error::Data(format!(
                "tiles have shapes {} and {shape}, expected tiles of one shape: bring them to one by image_resize",
                tiles.shape
            )));
        }
        let has_bytes = |pixels: &Pixels| matches!(pixels, Pixels::U8(_));
        if tiles.values.first().is_some_and(|first| has_bytes(first) != has_bytes(tile.pixels())) {
            return Err(Error::Data("tiles of bytes and of floats came together, expected one kind".to_owned()));
        }
        tiles.places.push(place);
        tiles.values.push(tile.into_pixels());
        Ok(())
    }

    /// Bytes that the tiles take.
    pub fn memory(&self) -> usize {
        let Some(tiles) = &self.tiles else { return 0 };
        let value = if matches!(tiles.values.first(), Some(Pixels::U8(_))) { 1 } else { size_of::<f32>() };
        let tile = tiles.shape.len() * value + size_of::<Pixels>() + size_of::<(usize, usize)>();
        tiles.places.len() * tile
    }

    /// The image that the tiles make, from row 0 and column 0 to where the last of them end; of bytes the averages are
    /// rounded, halves up. `None` without a tile.
    ///
    /// # Errors
    /// [`Error::Data`] if two tiles lie at one place; and if no tile covers some place, naming it, the tiles' size and
    /// their steps.
    pub fn image(&self) -> Result<Option<Image>> {
        self.tiles.as_ref().map(Tiles::image).transpose()
    }
}

impl Tiles {
    fn image(&self) -> Result<Image> {
        // In the order of their places, so that sums do not depend on the order in which tiles came.
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        order.sort_by_key(|tile| self.places[*tile]);
        let place = |tile: &usize| self.places[*tile];
        if let Some(pair) = order.windows(2).find(|pair| place(&pair[0]) == place(&pair[1])) {
            let (y, x) = place(&pair[0]);
            return Err(Error::Data(format!(
                "two tiles lie at y {y}, x {x}, expected those of one image: GROUP BY the image"
            )));
        }
        let end = |side: fn(&(usize, usize)) -> usize, length: usize| {
            self.places.iter().map(side).max().unwrap_or_default().saturating_add(length)
        };
        let height = end(|place| place.0, self.shape.height());
        let width = end(|place| place.1, self.shape.width());
        if let Some(place) = self.gap(&order, (height, width)) {
            return Err(self.gap_error(place, (height, width)));
        }
        // All of it is covered, so that it has at most as many values as the tiles.
        let shape = ImageShape::new(height, width, self.shape.channels());
        let bytes = |tile: usize| match self.values.get(tile) {
            Some(Pixels::U8(values)) => values.as_slice(),
            _ => &[],
        };
        let floats = |tile: usize| match self.values.get(tile) {
            Some(Pixels::F32(values)) => values.as_slice(),
            _ => &[],
        };
        let pixels = match self.values.first() {
            Some(Pixels::U8(_)) => Pixels::U8(self.averages(bytes, &order, shape)),
            _ => Pixels::F32(self.averages(floats, &order, shape)),
        };
        Image::try_new(shape, pixels)
    }

    /// The tiles, in order of their places, that cover a row.
    fn covering<'a>(&self, order: &'a [usize], row: usize) -> &'a [usize] {
        let top = |tile: &usize| self.places[*tile].0;
        let first = order.partition_point(|tile| top(tile).saturating_add(self.shape.height()) <= row);
        let end = order.partition_point(|tile| top(tile) <= row);
        &order[first..end]
    }

    /// The first place that no tile covers, if there is one. Only rows where tiles begin or end are looked at, since all
    /// others are covered as the row before.
    fn gap(&self, order: &[usize], (height, width): (usize, usize)) -> Option<(usize, usize)> {
        let edges = |place: &(usize, usize)| [place.0, place.0.saturating_add(self.shape.height())];
        let mut rows: Vec<usize> = [0].into_iter().chain(self.places.iter().flat_map(edges)).collect();
        rows.retain(|row| *row < height);
        rows.sort_unstable();
        rows.dedup();
        rows.into_iter().find_map(|row| {
            let mut columns: Vec<usize> = self.covering(order, row).iter().map(|tile| self.places[*tile].1).collect();
            columns.sort_unstable();
            let mut reached = 0;
            for column in columns {
                if column > reached {
                    break;
                }
                reached = reached.max(column.saturating_add(self.shape.width()));
            }
            (reached < width).then_some((row, reached))
        })
    }

    fn gap_error(&self, (y, x): (usize, usize), (height, width): (usize, usize)) -> Error {
        let tall = self.shape.height();
        let wide = self.shape.width();
        let down = step(self.places.iter().map(|place| place.0));
        let right = step(self.places.iter().map(|place| place.1));
        let name = |step: Option<usize>| step.map_or("no other".to_owned(), |step| step.to_string());
        let is_apart = down.is_some_and(|step| step > tall) || right.is_some_and(|step| step > wide);
        let expected = match is_apart {
            true => "tiles no smaller than their steps: image_resize brings a map to the size of its tile",
            false => "all tiles of the image, from y 0, x 0 on",
        };
        Error::Data(format!(
            "no tile covers the place y {y}, x {x} of an image of {height} × {width} pixels, from tiles of {tall} × \
             {wide} with steps of {} × {}, expected {expected}",
            name(down),
            name(right)
        ))
    }

    /// The averages of an image's values; `values` gives those of a tile.
    fn averages<'a, T: Averaged + 'a>(
        &self,
        values: impl Fn(usize) -> &'a [T],
        order: &[usize],
        shape: ImageShape,
    ) -> Vec<T> {
        let channels = shape.channels();
        let length = self.shape.width() * channels;
        let mut out = Vec::with_capacity(shape.len());
        let mut sums = vec![0.0; shape.width() * channels];
        let mut counts = vec![0.0; shape.width()];
        for row in 0..shape.height() {
            sums.fill(0.0);
            counts.fill(0.0);
            for tile in self.covering(order, row) {
                let (top, left) = self.places[*tile];
                let values = values(*tile).iter().skip((row - top) * length);
                let sums = &mut sums[left * channels..][..length];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += (*value).into());
                counts[left..][..self.shape.width()].iter_mut().for_each(|count| *count += 1.0);
            }
            let pixels = sums.chunks_exact(channels).zip(&counts);
            out.extend(pixels.flat_map(|(sums, count)| sums.iter().map(move |sum| T::of(sum / count))));
        }
        out
    }
}

/// The difference of the first two places along a side.
fn step(places: impl Iterator<Item = usize>) -> Option<usize> {
    let mut places: Vec<usize> = places.collect();
    places.sort_unstable();
    places.dedup();
    places.windows(2).map(|pair| pair[1] - pair[0]).next()
}

/// A value of a tile, and of the average of tiles.
trait Averaged: Copy + Into<f64> {
    fn of(average: f64) -> Self;
}

impl Averaged for u8 {
    fn of(average: f64) -> Self {
        average.round() as Self
    }
}

impl Averaged for f32 {
    fn of(average: f64) -> Self {
        average as Self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::super::TileGrid;
    use super::*;

    fn image(shape: ImageShape, values: impl Into<Pixels>) -> Image {
        Image::try_new(shape, values.into()).unwrap()
    }

    /// The tiles of an image, the last first.
    fn tiles(image: &Image, size: (usize, usize), stride: (usize, usize)) -> Mosaic {
        let grid = TileGrid::try_new(image.shape(), size, stride).unwrap();
        let mut mosaic = Mosaic::default();
        for place in grid.places().collect::<Vec<_>>().into_iter().rev() {
            mosaic.push(place, super::super::crop(image, place, size).unwrap()).unwrap();
        }
        mosaic
    }

    fn grey(values: Vec<u8>) -> Image {
        image(ImageShape::new(1, values.len(), 1), values)
    }

    #[test]
    fn overlaps_are_averaged_and_bytes_rounded() {
        let mut mosaic = Mosaic::default();
        assert_eq!(mosaic.image().unwrap(), None);
        for (place, values) in [((0, 0), vec![10, 20, 30]), ((0, 1), vec![25, 30, 40]), ((0, 2), vec![26, 43, 50])] {
            mosaic.push(place, grey(values)).unwrap();
        }
        // (20 + 25) / 2 = 22.5, (30 + 30 + 26) / 3 = 28.67, (40 + 43) / 2 = 41.5.
        assert_eq!(mosaic.image().unwrap(), Some(grey(vec![10, 23, 29, 42, 50])));
        let mut floats = Mosaic::default();
        for (place, values) in [((0, 0), vec![-1.0, 3.0_f32]), ((0, 1), vec![0.5, 1e30])] {
            floats.push(place, image(ImageShape::new(1, 2, 1), values)).unwrap();
        }
        let expected = image(ImageShape::new(1, 3, 1), vec![-1.0, 1.75, 1e30_f32]);
        assert_eq!(floats.image().unwrap(), Some(expected));
    }

    #[rstest]
    #[case::small_maps(&[(0, 0), (0, 4), (4, 0), (4, 4)], (0, 2), "6 × 6", "4 × 4", "image_resize")]
    #[case::missing(&[(0, 0), (0, 2), (2, 2)], (2, 0), "4 × 4", "2 × 2", "all tiles")]
    #[case::first(&[(2, 0)], (0, 0), "4 × 2", "no other × no other", "from y 0, x 0 on")]
    #[case::right(&[(0, 0), (0, 2), (2, 0)], (2, 2), "4 × 4", "2 × 2", "all tiles")]
    #[case::far(&[(0, 0), (usize::MAX, 0)], (2, 0), "pixels", "steps", "image_resize")]
    fn a_gap_is_named(
        #[case] places: &[(usize, usize)],
        #[case] (y, x): (usize, usize),
        #[case] size: &str,
        #[case] steps: &str,
        #[case] expected: &str,
    ) {
        let mut mosaic = Mosaic::default();
        for place in places {
            mosaic.push(*place, image(ImageShape::new(2, 2, 1), vec![7_u8; 4])).unwrap();
        }
        let error = mosaic.image().unwrap_err().to_string();
        assert!(error.starts_with(&format!("no tile covers the place y {y}, x {x} of an image of ")), "{error}");
        assert!(error.contains("from tiles of 2 × 2 with steps of "), "{error}");
        assert!([size, steps, expected].iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn tiles_of_two_images_are_refused() {
        let mut mosaic = Mosaic::default();
        for (place, values) in [((0, 0), vec![1, 2]), ((0, 2), vec![3, 4]), ((0, 0), vec![5, 6])] {
            mosaic.push(place, grey(values)).unwrap();
        }
        let error = mosaic.image().unwrap_err().to_string();
        assert_eq!(error, "two tiles lie at y 0, x 0, expected those of one image: GROUP BY the image");
    }

    #[test]
    fn other_shapes_and_kinds_are_refused() {
        let mut mosaic = Mosaic::default();
        mosaic.push((0, 0), grey(vec![1, 2])).unwrap();
        let error = mosaic.push((0, 2), grey(vec![1])).unwrap_err().to_string();
        assert!(error.starts_with("tiles have shapes [1, 2, 1] and [1, 1, 1], expected tiles of one shape"), "{error}");
        let floats = image(ImageShape::new(1, 2, 1), vec![0.0_f32; 2]);
        let error = mosaic.push((0, 2), floats).unwrap_err().to_string();
        assert_eq!(error, "tiles of bytes and of floats came together, expected one kind");
        assert_eq!(mosaic.places(), [(0, 0)]);
        assert_eq!(mosaic.values(), [Pixels::U8(vec![1, 2])]);
    }

    proptest! {
        /// Tiles of an image make the image, in any order; those of two images make none.
        #[test]
        fn stitching_undoes_tiling(
            (height, width, channels) in (1_usize..24, 1_usize..24, 1_usize..5),
            (tall, wide) in (1_usize..9, 1_usize..9),
            (down, right) in (1_usize..9, 1_usize..9),
            seed in any::<u32>(),
        ) {
            let shape = ImageShape::new(height, width, channels);
            let size = (tall.min(height), wide.min(width));
            let stride = (down.min(size.0), right.min(size.1));
            let noise = |i: usize| (i as u32).wrapping_add(seed).wrapping_mul(2_654_435_761);
            let bytes: Vec<u8> = (0..shape.len()).map(|i| (noise(i) >> 24) as u8).collect();
            let floats: Vec<f32> = (0..shape.len()).map(|i| noise(i) as f32 / 1e6 - 2000.0).collect();
            for whole in [image(shape, bytes), image(shape, floats)] {
                let mut mosaic = tiles(&whole, size, stride);
                prop_assert_eq!(&mosaic.image().unwrap().unwrap(), &whole);
                let memory = mosaic.memory();
                for (place, values) in mosaic.clone().places().iter().zip(mosaic.clone().values()) {
                    let shape = ImageShape::new(size.0, size.1, channels);
                    mosaic.push(*place, image(shape, values.clone())).unwrap();
                }
                prop_assert!(memory >= whole.shape().len() && mosaic.memory() == 2 * memory);
                prop_assert!(mosaic.image().is_err());
            }
        }
    }
}
