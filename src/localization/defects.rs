//! The mask of an image's defects, at the size of a map.

use super::regions::label;
use crate::image::{Image, Pixels};

/// The places of an image that show a defect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefectMask {
    places: Vec<bool>,
    height: usize,
    width: usize,
}

impl DefectMask {
    /// The mask in an image: a pixel that is not 0 in some channel is one of a defect. Of two and of four channels the last
    /// is opacity, which marks none.
    pub fn of_image(image: &Image) -> Self {
        let shape = image.shape();
        let places = match image.pixels() {
            Pixels::U8(values) => marked(values, shape.channels()),
            Pixels::F32(values) => marked(values, shape.channels()),
        };
        Self { places, height: shape.height(), width: shape.width() }
    }

    /// The mask at another size: each place takes the pixel that its middle lies in, ⌊(y + ½)·h/H⌋.
    pub fn at_size(self, height: usize, width: usize) -> Self {
        if (self.height, self.width) == (height, width) {
            return self;
        }
        // Twice the middle, so that all are integers.
        let pixel = |place: usize, pixels: usize, places: usize| (2 * place + 1) * pixels / (2 * places);
        let columns: Vec<usize> = (0..width).map(|x| pixel(x, self.width, width)).collect();
        let rows = (0..height).map(|y| pixel(y, self.height, height) * self.width);
        let places = rows.flat_map(|row| columns.iter().map(move |x| row + x)).map(|i| self.places[i]).collect();
        Self { places, height, width }
    }

    /// Whether each place shows a defect, (H, W).
    pub fn places(&self) -> &[bool] {
        &self.places
    }

    /// The share of each place in its connected region, 1/area; 0 outside. They sum to the number of regions.
    pub(super) fn shares(&self) -> Vec<f64> {
        let numbers = label(&self.places, self.width);
        let mut areas = vec![0_usize; numbers.iter().copied().max().unwrap_or(0) + 1];
        numbers.iter().for_each(|number| areas[*number] += 1);
        let share = |number: usize| if number == 0 { 0.0 } else { 1.0 / areas[number] as f64 };
        numbers.into_iter().map(share).collect()
    }
}

/// Whether each pixel has a colour that is not 0.
fn marked<T: Default + PartialEq>(values: &[T], channels: usize) -> Vec<bool> {
    let colours = if matches!(channels, 2 | 4) { channels - 1 } else { channels };
    let is_marked = |pixel: &[T]| pixel[..colours].iter().any(|value| *value != T::default());
    values.chunks_exact(channels).map(is_marked).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::image::ImageShape;

    fn mask(height: usize, width: usize, channels: usize, pixels: &[u8]) -> DefectMask {
        let shape = ImageShape::new(height, width, channels);
        DefectMask::of_image(&Image::try_new(shape, Pixels::U8(pixels.to_vec())).unwrap())
    }

    fn letters(mask: &DefectMask) -> String {
        let rows = mask.places.chunks_exact(mask.width);
        let row = |row: &[bool]| row.iter().map(|place| if *place { '#' } else { '.' }).collect::<String>();
        rows.map(row).collect::<Vec<_>>().join(" ")
    }

    #[rstest]
    #[case::grey(1, &[0, 1, 255, 0], ".# #.")]
    #[case::colours(3, &[0, 0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0], ".# #.")]
    #[case::grey_and_opacity(2, &[0, 255, 7, 255, 0, 0, 9, 0], ".# .#")]
    #[case::opacity(4, &[0, 0, 0, 255, 0, 7, 0, 255, 0, 0, 0, 9, 0, 0, 0, 0], ".# ..")]
    fn marked_pixels(#[case] channels: usize, #[case] pixels: &[u8], #[case] expected: &str) {
        assert_eq!(letters(&mask(2, 2, channels, pixels)), expected);
    }

    #[test]
    fn floats_above_0_are_marked() {
        let shape = ImageShape::new(1, 3, 1);
        let image = Image::try_new(shape, Pixels::F32(vec![-0.0, 1e-6, 1.0])).unwrap();
        assert_eq!(letters(&DefectMask::of_image(&image)), ".##");
    }

    #[rstest]
    #[case::the_same(2, 3, "#.. ..#")]
    #[case::twice(4, 6, "##.... ##.... ....## ....##")]
    #[case::wider(2, 4, "#... ...#")]
    #[case::a_row(1, 3, "..#")]
    #[case::a_place(1, 1, ".")]
    fn the_nearest_pixel_is_taken(#[case] height: usize, #[case] width: usize, #[case] expected: &str) {
        let marked = mask(2, 3, 1, &[1, 0, 0, 0, 0, 1]);
        assert_eq!(letters(&marked.at_size(height, width)), expected);
    }

    /// The middles of two places in six pixels lie at 1.5 and 4.5.
    #[test]
    fn smaller_sizes_take_the_pixel_in_the_middle() {
        assert_eq!(letters(&mask(1, 6, 1, &[0, 1, 0, 0, 0, 1]).at_size(1, 2)), "#.");
        assert_eq!(letters(&mask(1, 1, 1, &[0]).at_size(2, 2)), ".. ..");
        assert_eq!(letters(&mask(1, 1, 1, &[1]).at_size(2, 2)), "## ##");
    }

    #[test]
    fn shares_of_regions_by_hand() {
        let shares = mask(2, 4, 1, &[1, 0, 0, 1, 0, 1, 0, 0]).shares();
        assert_eq!(shares, [0.5, 0.0, 0.0, 1.0, 0.0, 0.5, 0.0, 0.0]);
        assert_eq!(mask(1, 2, 1, &[0, 0]).shares(), [0.0, 0.0]);
    }
}
