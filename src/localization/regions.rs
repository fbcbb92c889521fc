//! The connected regions of a map: places above a threshold that touch by a side or a corner.

use crate::calibrate::Threshold;

/// A connected region of a map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// The first row.
    pub y: usize,
    /// The first column.
    pub x: usize,
    /// Rows from the first to the last.
    pub height: usize,
    /// Columns from the first to the last.
    pub width: usize,
    /// Places of the region.
    pub area: usize,
    /// The largest value.
    pub peak: f32,
}

/// Marks the places of a map whose values exceed a threshold: 255 there, and 0 elsewhere.
///
/// # Shapes
/// (H, W) → (H, W).
pub fn mark(map: &[f32], threshold: Threshold, mask: &mut [u8]) {
    for (place, value) in mask.iter_mut().zip(map) {
        *place = if threshold.is_exceeded_by(*value) { 255 } else { 0 };
    }
}

/// The regions of a map in which its values exceed a threshold, that of the highest peak first; of equal peaks, the one
/// that begins in an earlier row, then in an earlier column. With `connected` false, all places together are one region,
/// as of an image that is strange only as a whole.
///
/// # Shapes
/// `map` (H, W), with rows of `width` places.
pub fn regions(map: &[f32], width: usize, threshold: Threshold, connected: bool) -> Vec<Region> {
    let mask: Vec<bool> = map.iter().map(|value| threshold.is_exceeded_by(*value)).collect();
    let mut numbers = label(&mask, width);
    if !connected {
        numbers.iter_mut().for_each(|number| *number = (*number).min(1));
    }
    let mut regions: Vec<Region> = Vec::new();
    for (place, number) in numbers.iter().enumerate().filter(|(_, number)| **number > 0) {
        let y = place / width;
        let x = place % width;
        let peak = map[place];
        match regions.get_mut(*number - 1) {
            Some(region) => region.extend(y, x, peak),
            None => regions.push(Region { y, x, height: 1, width: 1, area: 1, peak }),
        }
    }
    regions.sort_by(|a, b| b.peak.total_cmp(&a.peak).then((a.y, a.x).cmp(&(b.y, b.x))));
    regions
}

impl Region {
    /// Adds a place that lies in no earlier row.
    fn extend(&mut self, y: usize, x: usize, value: f32) {
        let right = (self.x + self.width).max(x + 1);
        self.x = self.x.min(x);
        self.width = right - self.x;
        self.height = y + 1 - self.y;
        self.area += 1;
        self.peak = self.peak.max(value);
    }
}

/// The number of each place's region, from 1 in the order of their first places; 0 outside of the mask.
///
/// # Shapes
/// (H, W) → (H, W), in rows of `width` places.
pub(super) fn label(mask: &[bool], width: usize) -> Vec<usize> {
    let height = mask.len().checked_div(width).unwrap_or(0);
    let mut numbers = vec![0; mask.len()];
    let mut count = 0;
    let mut open = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || numbers[start] > 0 {
            continue;
        }
        count += 1;
        numbers[start] = count;
        open.push(start);
        while let Some(place) = open.pop() {
            let y = place / width;
            let x = place % width;
            for row in y.saturating_sub(1)..=(y + 1).min(height - 1) {
                for next in row * width + x.saturating_sub(1)..=row * width + (x + 1).min(width - 1) {
                    if mask[next] && numbers[next] == 0 {
                        numbers[next] = count;
                        open.push(next);
                    }
                }
            }
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::calibrate::{Calibration, Guarantee, Score};

    /// The threshold 1.
    fn one() -> Threshold {
        let calibration = Calibration::try_new(vec![1.0]).unwrap();
        calibration.scores(Score::Cost).unwrap().threshold(Guarantee::try_new(0.5, None).unwrap()).unwrap()
    }

    /// A mask of letters: `#` is inside.
    fn mask(rows: &[&str]) -> Vec<bool> {
        rows.iter().flat_map(|row| row.bytes().map(|b| b == b'#')).collect()
    }

    #[rstest]
    #[case::corners_touch(&["#..#", ".#.#", "....", "##.."], &[1, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0, 3, 3, 0, 0])]
    #[case::rows_do_not_wrap(&["..#", "#..", "..#"], &[0, 0, 1, 2, 0, 0, 0, 0, 3])]
    #[case::all(&["##", "##"], &[1, 1, 1, 1])]
    #[case::none(&["..", ".."], &[0, 0, 0, 0])]
    #[case::a_row(&["#.##"], &[1, 0, 2, 2])]
    #[case::a_place(&["#"], &[1])]
    fn labels_by_hand(#[case] rows: &[&str], #[case] numbers: &[usize]) {
        assert_eq!(label(&mask(rows), rows[0].len()), numbers);
    }

    #[test]
    fn a_spiral_is_one_region() {
        let spiral = ["#####", "....#", "###.#", "#...#", "#####"];
        assert_eq!(label(&mask(&spiral), 5).into_iter().max(), Some(1));
        assert_eq!(label(&[], 0), Vec::<usize>::new());
    }

    #[test]
    fn regions_by_hand() {
        let map = [
            [0.0, 0.0, 2.0, 0.0, 5.0], //
            [0.0, 3.0, 0.0, 0.0, 0.0],
            [4.0, 0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 4.0, 4.0],
        ];
        let map = map.as_flattened();
        let region = |y, x, height, width, area, peak| Region { y, x, height, width, area, peak };
        // The threshold itself is not above it. Of equal peaks, the upper region comes first.
        let expected = [region(0, 4, 1, 1, 1, 5.0), region(0, 0, 3, 3, 3, 4.0), region(3, 3, 1, 2, 2, 4.0)];
        assert_eq!(regions(map, 5, one(), true), expected);
        assert_eq!(regions(map, 5, one(), false), [region(0, 0, 4, 5, 6, 5.0)]);
        for connected in [true, false] {
            assert_eq!(regions(&[1.0, 0.5, f32::NEG_INFINITY, 0.0], 2, one(), connected), []);
        }
        assert_eq!(regions(&[0.0, f32::NAN], 2, one(), true).len(), 1);
    }

    #[test]
    fn marks_by_hand() {
        let mut mask = [7; 4];
        mark(&[1.0, 1.5, f32::NAN, -9.0], one(), &mut mask);
        assert_eq!(mask, [0, 255, 255, 0]);
    }

    proptest! {
        /// Places of one number are connected, and places that touch have one number.
        #[test]
        fn regions_are_the_connected_parts(cells in proptest::collection::vec(any::<bool>(), 1..60), width in 1_usize..8) {
            let cells = &cells[..cells.len() / width * width];
            let numbers = label(cells, width);
            let touch = |a: usize, b: usize| {
                (a / width).abs_diff(b / width) <= 1 && (a % width).abs_diff(b % width) <= 1
            };
            let inside: Vec<usize> = (0..cells.len()).filter(|place| cells[*place]).collect();
            for a in &inside {
                for b in inside.iter().filter(|b| touch(*a, **b)) {
                    prop_assert_eq!(numbers[*a], numbers[*b]);
                }
            }
            // As many numbers as there are parts, by joining those that touch until nothing changes.
            let mut parts: Vec<usize> = (0..cells.len()).collect();
            for _ in 0..cells.len() {
                for a in &inside {
                    for b in inside.iter().filter(|b| touch(*a, **b)) {
                        parts[*a] = parts[*a].min(parts[*b]);
                    }
                }
            }
            let roots = inside.iter().filter(|place| parts[**place] == **place).count();
            prop_assert_eq!(numbers.iter().copied().max().unwrap_or(0), roots);
            prop_assert!((0..cells.len()).all(|place| cells[place] == (numbers[place] > 0)));
        }
    }
}
