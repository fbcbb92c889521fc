//! The held-out split: a share of the pictures, each with all its copies.
//!
//! Rows of equal keys are copies of one picture. Pictures come in the order of their keys, which are seeded hashes, and
//! each goes to the held-out side if that brings the number of held-out rows nearer to `holdout` of all rows. So no
//! picture is trained on while a twin of it is held out.
//!
//! A picture with more copies than rows are to be held out (or to be trained on) fits on neither side. Its copies are
//! divided in the proportion of the split, and both sides keep the table's mix. The others are then split as a table
//! of their own, so that a picture which is most of a table takes nobody's place among the held-out rows.

use std::collections::BTreeMap;

use rayon::prelude::*;

/// Rows in the order of their keys, split in two.
#[derive(Debug, PartialEq)]
pub(super) struct Split {
    /// Held-out rows first, then training rows.
    pub(super) order: Vec<u32>,
    pub(super) held_out: usize,
    /// Pictures that differ.
    pub(super) pictures: usize,
    /// Pictures with copies on both sides.
    pub(super) divided: usize,
}

impl Split {
    /// Splits rows by their keys: 4 bytes of memory a row while it sorts, and 4 for the result.
    pub(super) fn new(keys: &[u64], holdout: f64) -> Self {
        let mut rows: Vec<u32> = (0..).take(keys.len()).collect();
        // No two are equal, and a stable sort would take memory.
        rows.par_sort_unstable_by_key(|row| (keys[*row as usize], *row));
        let mut quota = Quota::new(|| pictures(&rows, keys).map(<[u32]>::len), holdout);
        let mut split = Self { order: vec![0; rows.len()], held_out: 0, pictures: 0, divided: 0 };
        let mut end = rows.len(); // training rows are written from the end on
        for picture in pictures(&rows, keys) {
            let (held_out, training) = picture.split_at(quota.take(picture.len()));
            split.order[split.held_out..][..held_out.len()].copy_from_slice(held_out);
            split.held_out += held_out.len();
            for row in training {
                end -= 1;
                split.order[end] = *row;
            }
            split.pictures += 1;
            split.divided += usize::from(!held_out.is_empty() && !training.is_empty());
        }
        split.order[split.held_out..].reverse();
        split
    }

    /// Says how many rows are copies, and where no row is held out.
    pub(super) fn log(&self, holdout: f64) {
        let rows = self.order.len();
        let copies = rows - self.pictures;
        if self.divided > 0 {
            log::warn!(
                "{copies} of {rows} images are copies of others; copies of {} of the {} pictures are both held out and \
                 trained on, as they are too many for one side",
                self.divided,
                self.pictures
            );
        } else if copies > 0 {
            log::info!("{copies} of {rows} images are copies of others, and on their side of the split");
        }
        if self.held_out == 0 && holdout > 0.0 {
            log::warn!("no row is held out: {rows} rows are too few for holdout => {holdout}, and give no p-values");
        }
    }
}

/// The rows of each picture.
fn pictures<'a>(order: &'a [u32], keys: &'a [u64]) -> impl Iterator<Item = &'a [u32]> {
    order.chunk_by(|a, b| keys[*a as usize] == keys[*b as usize])
}

/// The number of rows to hold out of so many.
pub(super) fn share(rows: usize, holdout: f64) -> usize {
    (rows as f64 * holdout).round() as usize
}

/// The number of rows to hold out of one picture after another.
#[derive(Debug)]
struct Quota {
    holdout: f64,
    /// The most copies that go to one side together.
    together: usize,
    /// Rows so far of pictures that are divided.
    divided: usize,
    /// Rows to hold out of pictures that are not divided.
    open: usize,
    /// Rows that may be held out beyond those.
    spare: usize,
}

impl Quota {
    fn new<I: Iterator<Item = usize>>(pictures: impl Fn() -> I, holdout: f64) -> Self {
        let together = most_together(pictures(), holdout);
        let rows: usize = pictures().sum();
        let divided = pictures().filter(|copies| *copies > together).sum();
        let held_out = share(rows, holdout);
        let open = held_out.saturating_sub(share(divided, holdout));
        Self { holdout, together, divided: 0, open, spare: rows.saturating_sub(held_out + 2) }
    }

    /// Rows to hold out of a picture's copies.
    fn take(&mut self, copies: usize) -> usize {
        if copies > self.together {
            let before = share(self.divided, self.holdout);
            self.divided += copies;
            return share(self.divided, self.holdout) - before;
        }
        // Nearer to what is open, or as near, but for the two rows that must be left.
        if copies > self.open + self.open.min(self.spare) {
            return 0;
        }
        self.open = self.open.saturating_sub(copies);
        copies
    }
}

/// The most copies that go to one side together, given the copies of each picture.
fn most_together(pictures: impl Iterator<Item = usize>, holdout: f64) -> usize {
    let mut rows = 0;
    let mut rows_by_copies = BTreeMap::new();
    for copies in pictures {
        rows += copies;
        *rows_by_copies.entry(copies).or_insert(0) += copies;
    }
    while let Some((copies, of_those)) = rows_by_copies.pop_last() {
        let held_out = share(rows, holdout);
        if copies <= held_out.min(rows - held_out) {
            return copies;
        }
        rows -= of_those;
    }
    0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    use super::*;

    /// Keys of pictures with so many copies each, in turn: the first copy of each, then the second.
    fn keys(copies: &[usize], seed: u64) -> Vec<u64> {
        let key = |picture: usize| xxh3_64_with_seed(&picture.to_le_bytes(), seed);
        let most = copies.iter().max().copied().unwrap_or(0);
        (0..most).flat_map(|copy| (0..copies.len()).filter(move |p| copies[*p] > copy)).map(key).collect()
    }

    /// The number of held-out copies of each picture that has any, beside all its copies.
    fn held_out(keys: &[u64], holdout: f64) -> Vec<(usize, usize)> {
        let split = Split::new(keys, holdout);
        let mut pictures: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for (place, row) in split.order.iter().enumerate() {
            let picture = pictures.entry(keys[*row as usize]).or_default();
            picture.0 += usize::from(place < split.held_out);
            picture.1 += 1;
        }
        assert_eq!(split.pictures, pictures.len());
        let pictures: Vec<_> = pictures.into_values().filter(|(held, _)| *held > 0).collect();
        assert_eq!(split.divided, pictures.iter().filter(|(held, all)| held < all).count());
        pictures
    }

    fn rows(pictures: &[(usize, usize)]) -> usize {
        pictures.iter().map(|(held, _)| held).sum()
    }

    /// Without large pictures, the rows with the smallest keys are held out, up to the end of a picture.
    #[rstest]
    #[case::different(100, 1, 0.1, 10)]
    #[case::twins(50, 2, 0.1, 10)]
    #[case::twins_at_the_border(50, 2, 0.11, 12)]
    #[case::half(3, 1, 0.2, 1)]
    #[case::none(4, 1, 0.1, 0)]
    #[case::off(100, 1, 0.0, 0)]
    fn the_first_rows_are_held_out(
        #[case] pictures: usize,
        #[case] copies: usize,
        #[case] holdout: f64,
        #[case] expected: usize,
    ) {
        let keys = keys(&vec![copies; pictures], 7);
        let split = Split::new(&keys, holdout);
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        order.sort_by_key(|row| (keys[*row as usize], *row));
        let expected = Split { order, held_out: expected, pictures, divided: 0 };
        assert_eq!(split, expected);
    }

    #[rstest]
    #[case::one_picture(&[200], 0.1, vec![(20, 200)])]
    #[case::two_pictures(&[100, 100], 0.1, vec![(10, 100), (10, 100)])]
    #[case::two_pictures_of_which_few_train(&[100, 100], 0.9, vec![(90, 100), (90, 100)])]
    #[case::half_of_each_fits(&[100, 100], 0.5, vec![(100, 100)])]
    #[case::half_of_one(&[100], 0.5, vec![(50, 100)])]
    #[case::two_rows(&[2], 0.2, vec![])]
    #[case::three_rows(&[3], 0.3, vec![(1, 3)])]
    fn few_pictures(#[case] copies: &[usize], #[case] holdout: f64, #[case] expected: Vec<(usize, usize)>) {
        assert_eq!(held_out(&keys(copies, 0), holdout), expected);
    }

    /// The frame that is most of a table is divided, and a tenth of the others is held out.
    #[rstest]
    #[case::different(2700, 300, 1, 0.1)]
    #[case::twins(2700, 150, 2, 0.1)]
    #[case::half(600, 400, 1, 0.5)]
    #[case::most(900, 100, 1, 0.8)]
    fn a_frame_that_is_most_of_a_table(
        #[case] frames: usize,
        #[case] others: usize,
        #[case] copies: usize,
        #[case] holdout: f64,
    ) {
        for seed in 0..20 {
            let held_out = held_out(&keys(&[vec![frames], vec![copies; others]].concat(), seed), holdout);
            let expected = (share(frames, holdout), frames);
            assert_eq!(held_out.iter().filter(|picture| picture.1 == frames).collect::<Vec<_>>(), [&expected]);
            assert_eq!(rows(&held_out) - expected.0, share(others * copies, holdout));
        }
    }

    /// A picture that fits is held out with its copies, and one that does not is passed over.
    #[rstest]
    #[case::a_tenth(&[100; 10], 0.1)]
    #[case::a_bit_more(&[100; 10], 0.12)]
    #[case::of_all_sizes(&[1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233], 0.5)]
    #[case::frames_of_two_sizes(&[900, 50, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 0.1)]
    fn the_share_is_met(#[case] copies: &[usize], #[case] holdout: f64) {
        let largest = most_together(copies.iter().copied(), holdout);
        let expected = share(copies.iter().sum(), holdout);
        for seed in 0..20 {
            let held_out = held_out(&keys(copies, seed), holdout);
            let rows = rows(&held_out);
            assert!(rows.abs_diff(expected) <= largest / 2, "{rows} rows of {expected}");
            assert!(held_out.iter().all(|(held, all)| held == all || *all > largest));
        }
    }

    /// Over seeds, each picture is held out about as often as `holdout` says.
    #[test]
    fn no_picture_is_preferred() {
        let mut times = [0; 50];
        for seed in 0..2000 {
            let key = |picture: u64| xxh3_64_with_seed(&picture.to_le_bytes(), seed);
            let keys: Vec<u64> = (0..50).flat_map(|picture| vec![key(picture); 1 + picture as usize % 3]).collect();
            let split = Split::new(&keys, 0.2);
            let held: Vec<u64> = split.order[..split.held_out].iter().map(|row| keys[*row as usize]).collect();
            (0..50).for_each(|picture| times[picture as usize] += usize::from(held.contains(&key(picture))));
        }
        assert!(times.iter().all(|times| (320..480).contains(times)), "{times:?}");
    }

    proptest! {
        #[test]
        fn any_table(
            copies in prop::collection::vec(prop_oneof![3 => 1_usize..4, 1 => 1_usize..200], 1..40),
            holdout in 0.0..1.0_f64,
            seed in any::<u64>(),
        ) {
            let keys = keys(&copies, seed);
            let target = share(keys.len(), holdout);
            prop_assume!(target + 2 <= keys.len());
            let pictures = held_out(&keys, holdout);
            prop_assert!(rows(&pictures) + 2 <= keys.len());
            let largest = most_together(copies.iter().copied(), holdout);
            prop_assert!(rows(&pictures).abs_diff(target) <= largest.max(1), "{} of {target}", rows(&pictures));
            for (held, all) in &pictures {
                let difference = (*held as f64 - *all as f64 * holdout).abs();
                let right = if *all > largest { difference <= 1.0 } else { held == all };
                prop_assert!(right, "{held} of {all}");
            }
            let mut turned = keys.clone();
            turned.reverse();
            prop_assert_eq!(held_out(&turned, holdout), pictures);
        }
    }
}
