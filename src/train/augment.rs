//! Random changes of training images, so that the network learns to rebuild what differs by them.
//!
//! ```text
//! out(y, x, c) = clamp(f · image(y', x', c), 0, 1)
//! y' = clamp(y − Δy, 0, H − 1)
//! x' = clamp(x − Δx, 0, W − 1), or its mirror W − 1 − x'
//! ```
//!
//! Where: Δy and Δx are whole pixels, uniform in ±⌊H/16⌋ and ±⌊W/16⌋; the mirror has probability ½; f is uniform in
//! [0.9, 1.1].

use std::ops::RangeInclusive;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::config::Augmentation;
use crate::image::ImageShape;

/// The factors of all values of an image.
const BRIGHTNESS: RangeInclusive<f32> = 0.9..=1.1;

/// The change of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Change {
    mirrored: bool,
    /// Pixels down and to the right.
    moved: (isize, isize),
    factor: f32,
}

/// Changes images at random, each by itself, (N, H, W, C).
pub(super) fn augment(images: &mut [f32], shape: ImageShape, choices: &[Augmentation], generator: &mut ChaCha8Rng) {
    let changes: Vec<Change> =
        (0..images.len() / shape.len()).map(|_| Change::draw(shape, choices, generator)).collect();
    let images = images.par_chunks_exact_mut(shape.len()).zip(changes);
    images.for_each_init(Vec::new, |original, (image, change)| change.apply(image, shape, original));
}

impl Change {
    /// The numbers of all kinds of change are drawn, so that a kind is the same whichever stand beside it.
    fn draw(shape: ImageShape, choices: &[Augmentation], generator: &mut ChaCha8Rng) -> Self {
        let mirrored = generator.random_bool(0.5);
        let mut pixels = |side: usize| {
            let most = (side / Augmentation::SHIFT_PARTS) as i32;
            generator.random_range(-most..=most) as isize
        };
        let moved = (pixels(shape.height()), pixels(shape.width()));
        let factor = generator.random_range(BRIGHTNESS);
        Self {
            mirrored: mirrored && choices.contains(&Augmentation::Flip),
            moved: if choices.contains(&Augmentation::Shift) { moved } else { (0, 0) },
            factor: if choices.contains(&Augmentation::Brightness) { factor } else { 1.0 },
        }
    }

    /// Changes an image. `original` is scratch memory, which calls can share.
    fn apply(self, image: &mut [f32], shape: ImageShape, original: &mut Vec<f32>) {
        original.clear();
        original.extend_from_slice(image);
        let channels = shape.channels();
        let inside = |place: usize, by: isize, side: usize| place.saturating_add_signed(-by).min(side - 1);
        for (y, row) in image.chunks_exact_mut(shape.width() * channels).enumerate() {
            let from = inside(y, self.moved.0, shape.height()) * row.len();
            for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                let x = inside(x, self.moved.1, shape.width());
                let x = if self.mirrored { shape.width() - 1 - x } else { x };
                let source = original[from + x * channels..].iter();
                pixel.iter_mut().zip(source).for_each(|(out, value)| *out = (self.factor * value).clamp(0.0, 1.0));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rstest::rstest;

    use super::*;

    const NONE: Change = Change { mirrored: false, moved: (0, 0), factor: 1.0 };

    /// Two rows of three pixels.
    #[rstest]
    #[case::none(NONE, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])]
    #[case::flip(Change { mirrored: true, ..NONE }, [0.3, 0.2, 0.1, 0.6, 0.5, 0.4])]
    #[case::down(Change { moved: (1, 0), ..NONE }, [0.1, 0.2, 0.3, 0.1, 0.2, 0.3])]
    #[case::up(Change { moved: (-1, 0), ..NONE }, [0.4, 0.5, 0.6, 0.4, 0.5, 0.6])]
    #[case::right(Change { moved: (0, 1), ..NONE }, [0.1, 0.1, 0.2, 0.4, 0.4, 0.5])]
    #[case::left(Change { moved: (0, -2), ..NONE }, [0.3, 0.3, 0.3, 0.6, 0.6, 0.6])]
    #[case::both(Change { mirrored: true, moved: (1, 1), ..NONE }, [0.3, 0.3, 0.2, 0.3, 0.3, 0.2])]
    #[case::brighter(Change { factor: 2.0, ..NONE }, [0.2, 0.4, 0.6, 0.8, 1.0, 1.0])]
    #[case::darker(Change { factor: 0.5, ..NONE }, [0.05, 0.1, 0.15, 0.2, 0.25, 0.3])]
    fn a_change_by_hand(#[case] change: Change, #[case] expected: [f32; 6]) {
        let mut image = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        change.apply(&mut image, ImageShape::new(2, 3, 1), &mut Vec::new());
        assert_eq!(image, expected);
    }

    /// Pixels move, not channels.
    #[test]
    fn channels_stay_together() {
        let mut image = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        Change { mirrored: true, ..NONE }.apply(&mut image, ImageShape::new(1, 2, 3), &mut Vec::new());
        assert_eq!(image, [0.4, 0.5, 0.6, 0.1, 0.2, 0.3]);
    }

    #[test]
    fn each_kind_is_drawn_within_its_bounds() {
        let shape = ImageShape::new(40, 64, 1);
        let draw = |choices: &[Augmentation]| {
            let mut generator = ChaCha8Rng::seed_from_u64(0);
            (0..1000).map(|_| Change::draw(shape, choices, &mut generator)).collect::<Vec<_>>()
        };
        let all = draw(&[Augmentation::Flip, Augmentation::Shift, Augmentation::Brightness]);
        let mirrored = all.iter().filter(|change| change.mirrored).count();
        assert!((450..550).contains(&mirrored), "{mirrored}");
        for (bound, moved) in
            [(2, all.iter().map(|c| c.moved.0).collect::<Vec<_>>()), (4, all.iter().map(|c| c.moved.1).collect())]
        {
            assert_eq!(moved.iter().min(), Some(&-bound));
            assert_eq!(moved.iter().max(), Some(&bound));
        }
        let factors = all.iter().map(|change| change.factor);
        assert!(factors.clone().all(|factor| (0.9..=1.1).contains(&factor)));
        assert!(factors.clone().any(|factor| factor < 0.91) && factors.clone().any(|factor| factor > 1.09));
        let alone = |keep: fn(&Change) -> Change| all.iter().map(keep).collect::<Vec<_>>();
        assert_eq!(draw(&[Augmentation::Flip]), alone(|c| Change { mirrored: c.mirrored, ..NONE }));
        assert_eq!(draw(&[Augmentation::Shift]), alone(|c| Change { moved: c.moved, ..NONE }));
        assert_eq!(draw(&[Augmentation::Brightness]), alone(|c| Change { factor: c.factor, ..NONE }));
    }

    #[test]
    fn each_image_has_a_change_of_its_own() {
        let shape = ImageShape::new(16, 16, 1);
        let image: Vec<f32> = (0..shape.len()).map(|i| i as f32 / 256.0).collect();
        let mut images = image.repeat(8);
        augment(&mut images, shape, &[Augmentation::Brightness], &mut ChaCha8Rng::seed_from_u64(0));
        let changed: Vec<&[f32]> = images.chunks_exact(shape.len()).collect();
        assert!(changed.iter().enumerate().all(|(i, one)| changed[..i].iter().all(|other| other != one)));
    }
}
