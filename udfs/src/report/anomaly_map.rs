//! Anomaly maps as coloured images.

use wae_core::image::Pixels;
use wae_core::{Image, ImageShape};

/// Dark to bright, even to the eye and in grey: five colours of matplotlib's `magma`.
const COLOURS: [[u8; 3]; 5] = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

/// The largest value of a map, with its row and column.
pub(super) fn largest(map: &[f32], width: usize) -> (f32, usize, usize) {
    let (at, value) = map.iter().enumerate().fold((0, 0.0), |best, (i, v)| if *v > best.1 { (i, *v) } else { best });
    (value, at / width, at % width)
}

/// The colour of a share of the largest value, in [0, 1].
fn colour(share: f32) -> [u8; 3] {
    let place = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32;
    let below = (place as usize).min(COLOURS.len() - 2);
    let rest = place - below as f32;
    let mix = |channel: usize| {
        let low = f32::from(COLOURS[below][channel]);
        let high = f32::from(COLOURS[below + 1][channel]);
        (low + rest * (high - low)).round() as u8
    };
    [mix(0), mix(1), mix(2)]
}

/// A map as an image, from the first colour at 0 to the last at `most`.
///
/// # Errors
/// Those of [`Image::try_new`].
pub(super) fn coloured(map: &[f32], height: usize, width: usize, most: f32) -> wae_core::Result<Image> {
    let pixels = map.iter().flat_map(|v| colour(if most > 0.0 { v / most } else { 0.0 })).collect();
    Image::try_new(ImageShape::new(height, width, 3), Pixels::U8(pixels))
}

/// The colours from 0 to 1 in `steps`, one a column, for the legend.
///
/// # Errors
/// Those of [`Image::try_new`].
pub(super) fn legend(steps: usize) -> wae_core::Result<Image> {
    let values: Vec<f32> = (0..steps).map(|i| i as f32 / (steps - 1).max(1) as f32).collect();
    coloured(&values, 1, steps, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_by_hand() {
        assert_eq!(largest(&[0.0, 1.0, 5.0, 2.0, 0.0, 0.0], 2), (5.0, 1, 0));
        assert_eq!(largest(&[0.0, 0.0], 2), (0.0, 0, 0));
    }

    #[test]
    fn colours_by_hand() {
        assert_eq!(colour(0.0), COLOURS[0]);
        assert_eq!(colour(0.25), COLOURS[1]);
        // Half way from (81, 18, 124) to (183, 55, 121).
        assert_eq!(colour(0.375), [132, 37, 123]);
        assert_eq!([colour(1.0), colour(7.0)], [COLOURS[4]; 2]);
        let map = coloured(&[0.0, 2.0], 1, 2, 2.0).unwrap();
        assert_eq!(map.to_u8(), [COLOURS[0], COLOURS[4]].concat());
        assert_eq!(coloured(&[0.0], 1, 1, 0.0).unwrap().to_u8(), COLOURS[0]);
        assert_eq!(legend(2).unwrap().to_u8(), map.to_u8());
    }
}
