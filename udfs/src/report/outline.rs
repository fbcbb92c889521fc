//! Outlines of the places that a mask marks, to be drawn over an image.

use maud::{Markup, html};

/// The outline of the marked places of a mask.
pub(super) struct Outline {
    height: usize,
    width: usize,
    marked: usize,
    /// The edges between marked places and others, as a path of SVG in units of places.
    path: String,
}

impl Outline {
    /// The outline of a mask, (H, W), in rows of `width` places; empty where it marks none.
    pub(super) fn new(mask: &[u8], width: usize) -> Self {
        let height = mask.len() / width.max(1);
        let is_marked = |y: usize, x: usize| y < height && x < width && mask[y * width + x] > 0;
        // Of the first row and column, the places before lie outside: 0 − 1 wraps round to a place beyond the last.
        let above = |y: usize, x: usize| is_marked(y.wrapping_sub(1), x) != is_marked(y, x);
        let before = |y: usize, x: usize| is_marked(y, x.wrapping_sub(1)) != is_marked(y, x);
        let mut path = String::new();
        for y in 0..=height {
            for (x, length) in runs(width, |x| above(y, x)) {
                path += &format!("M{x} {y}h{length}");
            }
        }
        for x in 0..=width {
            for (y, length) in runs(height, |y| before(y, x)) {
                path += &format!("M{x} {y}v{length}");
            }
        }
        Self { height, width, marked: mask.iter().filter(|value| **value > 0).count(), path }
    }

    /// Its words in an image's description; nothing where no place is marked.
    pub(super) fn words(&self) -> String {
        match self.marked {
            0 => String::new(),
            marked => format!(", {marked} of {} places outlined", self.height * self.width),
        }
    }

    /// The drawing, over an image of the same sides.
    pub(super) fn drawing(&self) -> Markup {
        html! {
            @if self.marked > 0 {
                svg aria-hidden="true" preserveAspectRatio="none" viewBox={ "0 0 " (self.width) " " (self.height) } {
                    path d=(self.path) {}
                }
            }
        }
    }
}

/// The stretches of places, below `places`, at which something holds: where each begins, and its length.
fn runs(places: usize, holds: impl Fn(usize) -> bool) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for place in (0..places).filter(|place| holds(*place)) {
        match runs.last_mut() {
            Some((start, length)) if *start + *length == place => *length += 1,
            _ => runs.push((place, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An L in the corner, and a place at the other end.
    #[test]
    fn outlines_by_hand() {
        let mask = [
            [9, 9, 0, 0], //
            [9, 0, 0, 0],
            [0, 0, 0, 9],
        ];
        let outline = Outline::new(mask.as_flattened(), 4);
        assert_eq!(outline.path, "M0 0h2M1 1h1M0 2h1M3 2h1M3 3h1M0 0v2M1 1v1M2 0v1M3 2v1M4 2v1");
        assert_eq!(outline.words(), ", 4 of 12 places outlined");
        let drawing = outline.drawing().into_string();
        assert!(drawing.contains("viewBox=\"0 0 4 3\"") && drawing.contains("<path d=\"M0 0h2"), "{drawing}");
    }

    #[test]
    fn nothing_marked_is_nothing_drawn() {
        let outline = Outline::new(&[0; 6], 3);
        assert_eq!((outline.path.as_str(), outline.words()), ("", String::new()));
        assert_eq!(outline.drawing().into_string(), "");
    }
}
