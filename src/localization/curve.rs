//! The curve of how much of the defects a map finds, by its rate of false positives.
//!
//! ```text
//! F(t) = #{normal places with a value ≥ t} / #{normal places}
//! T(t) = Σ {w(p) : defective places p with a value ≥ t} / Σ {w(p) : defective places p}
//! A(f) = (1/f) ∫₀ᶠ T dF
//! ```
//!
//! Where: t runs over the values of all maps, and the curve goes straight from each point (F, T) to the next. With w = 1,
//! A(1) is the pixel AUROC. With w(p) = 1/area of the connected region of p, T is the mean share of a region that is
//! found, and A(0.3) is AUPRO.
//!
//! # Memory
//! Every distinct value is kept, with its counts, up to 2²⁰ of them. Beyond that, trailing bits are dropped one by one
//! until so many are left; how many depends on the values alone, and neither on their order nor on how states are merged.
//! Values that agree in the other bits are ties then, which moves A by no more than [`PixelCurve::uncertainty`]. A curve
//! takes about 30 MB at most, and up to 100 MB for a moment while values are merged.
//!
//! # Source
//! Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129 (2021), section 6.

use super::DefectMask;
use crate::error::{Error, Result};

/// Most distinct values that are kept.
const MOST: usize = 1 << 20;
/// Places that wait until they are sorted.
const PENDING: usize = 1 << 18;

/// Places of one value, or of values of the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tie {
    /// The leading bits of the value, which rise with it.
    key: u32,
    /// Normal places.
    normal: u64,
    /// The weight of defective places.
    defective: f64,
}

impl Tie {
    /// Adds the places of another, and tells that it did: where both have one key.
    fn takes(&mut self, other: &Self) -> bool {
        let is_same = self.key == other.key;
        if is_same {
            self.normal += other.normal;
            self.defective += other.defective;
        }
        is_same
    }
}

/// The values of maps at normal and at defective places.
///
/// # Example
/// ```
/// use wae_core::image::{Image, ImageShape, Pixels};
/// use wae_core::localization::{DefectMask, PixelCurve};
///
/// let mask = Image::try_new(ImageShape::new(2, 2, 1), Pixels::U8(vec![0, 255, 0, 0]))?;
/// let mut curve = PixelCurve::default();
/// curve.add(&[0.1, 0.3, 0.2, 0.4], &DefectMask::of_image(&mask));
/// // The defective place is above two of three normal ones.
/// assert!((curve.area(1.0).unwrap() - 2.0 / 3.0).abs() < 1e-15);
/// # Ok::<(), wae_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct PixelCurve {
    /// In ascending order of keys, each once.
    ties: Vec<Tie>,
    /// In any order.
    pending: Vec<Tie>,
    /// Trailing bits of a value that its key leaves out.
    dropped: u32,
}

impl PixelCurve {
    /// Adds the places of one image, each defective place with the weight 1.
    ///
    /// `map` holds as many values as `mask` places; where their numbers differ, the places of both are taken.
    pub fn add(&mut self, map: &[f32], mask: &DefectMask) {
        self.extend(map.iter().zip(mask.places()).map(|(value, place)| (*value, f64::from(u8::from(*place)))));
    }

    /// As [`Self::add`], with weights by which each connected region counts alike.
    pub fn add_regions(&mut self, map: &[f32], mask: &DefectMask) {
        self.extend(map.iter().copied().zip(mask.shares()));
    }

    /// Adds values with the weight of a defective place, or 0 of a normal one.
    fn extend(&mut self, places: impl Iterator<Item = (f32, f64)>) {
        for (value, defective) in places {
            let key = ordered(value) >> self.dropped;
            self.pending.push(Tie { key, normal: u64::from(defective == 0.0), defective });
            if self.pending.len() >= PENDING {
                self.settle();
            }
        }
    }

    /// Adds all places of another curve.
    pub fn merge(&mut self, mut other: Self) {
        self.settle();
        other.settle();
        let dropped = self.dropped.max(other.dropped);
        self.drop_bits(dropped);
        other.drop_bits(dropped);
        self.pending = other.ties;
        self.settle();
    }

    /// A(f): the mean height of the curve up to a rate of false positives, `limit`, above 0 and at most 1. `None` without
    /// a normal or without a defective place.
    pub fn area(&mut self, limit: f64) -> Option<f64> {
        self.settle();
        let allowed = limit * self.normal()? as f64;
        let mut normal = 0_u64;
        let mut defective = 0.0;
        let mut area = 0.0;
        for tie in self.ties.iter().rev() {
            let rest = allowed - normal as f64;
            let step = tie.normal as f64;
            if step > rest {
                area += rest * (defective + tie.defective * rest / step / 2.0);
                break;
            }
            area += step * (defective + tie.defective / 2.0);
            normal += tie.normal;
            defective += tie.defective;
        }
        Some(area / (allowed * self.defective()))
    }

    /// The most by which [`Self::area`] can be off, 0 while every distinct value is kept. `None` as there.
    pub fn uncertainty(&mut self, limit: f64) -> Option<f64> {
        self.settle();
        let allowed = limit * self.normal()? as f64;
        if self.dropped == 0 {
            return Some(0.0);
        }
        let off: f64 = self.ties.iter().map(|tie| tie.normal as f64 * tie.defective / 2.0).sum();
        Some((off / (allowed * self.defective())).min(1.0))
    }

    /// The number of normal places, `None` where there are none or no defective ones.
    fn normal(&self) -> Option<u64> {
        let normal = self.ties.iter().map(|tie| tie.normal).sum();
        (normal > 0 && self.defective() > 0.0).then_some(normal)
    }

    /// The weight of all defective places.
    fn defective(&self) -> f64 {
        self.ties.iter().map(|tie| tie.defective).sum()
    }

    /// Bytes of memory that the values take.
    pub fn memory(&self) -> usize {
        (self.ties.capacity() + self.pending.capacity()) * size_of::<Tie>()
    }

    /// The state as columns: keys in ascending order, normal places, weights of defective ones; and the bits that keys
    /// leave out.
    pub fn into_parts(mut self) -> (Vec<u32>, Vec<u64>, Vec<f64>, u32) {
        self.settle();
        let keys = self.ties.iter().map(|tie| tie.key).collect();
        let normal = self.ties.iter().map(|tie| tie.normal).collect();
        (keys, normal, self.ties.iter().map(|tie| tie.defective).collect(), self.dropped)
    }

    /// The curve of a state.
    ///
    /// # Errors
    /// [`Error::Data`] if [`Self::into_parts`] did not make it.
    pub fn try_from_parts(keys: &[u32], normal: &[u64], defective: &[f64], dropped: u32) -> Result<Self> {
        let is_sorted = keys.windows(2).all(|pair| pair[0] < pair[1]);
        let weighs = defective.iter().all(|weight| *weight >= 0.0 && weight.is_finite());
        if !is_sorted || !weighs || dropped >= u32::BITS || [normal.len(), defective.len()] != [keys.len(); 2] {
            return Err(Error::Data("a state of a pixel metric is damaged".to_owned()));
        }
        let ties = keys.iter().zip(normal.iter().zip(defective));
        let ties = ties.map(|(key, (normal, defective))| Tie { key: *key, normal: *normal, defective: *defective });
        Ok(Self { ties: ties.collect(), pending: Vec::new(), dropped })
    }

    /// Sorts what waits into the rest.
    fn settle(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.pending.sort_unstable_by_key(|tie| tie.key);
        let mut pending = std::mem::take(&mut self.pending);
        // At once: a vector that grows would stand beside its older, smaller self.
        let room = Vec::with_capacity(self.ties.len() + pending.len());
        let mut rest = std::mem::replace(&mut self.ties, room).into_iter().peekable();
        for tie in pending.drain(..) {
            while let Some(smaller) = rest.next_if(|smaller| smaller.key <= tie.key) {
                push(&mut self.ties, smaller);
            }
            push(&mut self.ties, tie);
        }
        self.ties.extend(rest);
        // Another curve's values may have waited here.
        pending.shrink_to(PENDING);
        self.pending = pending;
        while self.ties.len() > MOST {
            self.drop_bits(self.dropped + 1);
        }
        self.ties.shrink_to_fit();
    }

    /// Leaves more bits of every key out; nothing may wait.
    fn drop_bits(&mut self, dropped: u32) {
        let more = dropped.saturating_sub(self.dropped);
        if more == 0 {
            return;
        }
        self.ties.iter_mut().for_each(|tie| tie.key >>= more);
        self.ties.dedup_by(|tie, last| last.takes(tie));
        self.dropped = dropped;
    }
}

/// Adds places whose key is no smaller than the last.
fn push(ties: &mut Vec<Tie>, tie: Tie) {
    if !ties.last_mut().is_some_and(|last| last.takes(&tie)) {
        ties.push(tie);
    }
}

/// Bits that rise with the value; −0 and 0 have the same.
fn ordered(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::image::{Image, ImageShape, Pixels};

    fn mask(height: usize, width: usize, places: &[bool]) -> DefectMask {
        let pixels = places.iter().map(|place| 255 * u8::from(*place)).collect();
        DefectMask::of_image(&Image::try_new(ImageShape::new(height, width, 1), Pixels::U8(pixels)).unwrap())
    }

    fn row(places: &[u8]) -> DefectMask {
        mask(1, places.len(), &places.iter().map(|place| *place == 1).collect::<Vec<_>>())
    }

    #[rstest]
    #[case::apart(&[1.0, 2.0, 3.0, 4.0], &[0, 0, 1, 1], 1.0)]
    #[case::reversed(&[4.0, 2.0, 3.0, 1.0], &[0, 0, 1, 1], 0.25)]
    #[case::ties_count_half(&[1.0, 1.0, 1.0], &[0, 1, 1], 0.5)]
    #[case::signs(&[-1.0, -2.0, 0.0, -0.0], &[0, 1, 0, 1], 0.375)]
    fn areas_by_hand(#[case] map: &[f32], #[case] places: &[u8], #[case] expected: f64) {
        let mut curve = PixelCurve::default();
        curve.add(map, &row(places));
        assert_eq!(curve.area(1.0), Some(expected));
        assert_eq!(curve.uncertainty(1.0), Some(0.0));
    }

    /// A region of three places is found before any other place, a region of one after half of the normal ones.
    #[rstest]
    #[case(0.3, 0.5)]
    #[case(0.5, 0.5)]
    #[case(0.75, 2.0 / 3.0)]
    #[case(1.0, 0.75)]
    fn regions_count_alike(#[case] limit: f64, #[case] expected: f64) {
        let mut curve = PixelCurve::default();
        curve.add_regions(&[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.5, 3.0], &row(&[1, 1, 1, 0, 0, 0, 1, 0]));
        assert!((curve.area(limit).unwrap() - expected).abs() < 1e-15);
    }

    /// Half of a step of ties: the curve is straight from (0, 0) to (1, 1).
    #[test]
    fn a_limit_within_a_tie_takes_its_part() {
        let mut curve = PixelCurve::default();
        curve.add_regions(&[0.0; 4], &row(&[0, 1, 0, 0]));
        assert!((curve.area(0.3).unwrap() - 0.15).abs() < 1e-15);
    }

    #[test]
    fn one_class_has_no_area() {
        for places in [[0, 0], [1, 1]] {
            let mut curve = PixelCurve::default();
            curve.add(&[1.0, 2.0], &row(&places));
            assert_eq!((curve.area(1.0), curve.uncertainty(1.0)), (None, None));
        }
        assert_eq!(PixelCurve::default().area(0.3), None);
    }

    /// Maps and masks of 12 images of 24×24 by a formula in integers, with ties; the areas by
    /// `benches/scores/metrics.py` (`auroc` and `aupro`).
    #[test]
    fn as_numpy_defines_them() {
        let mut pixels = PixelCurve::default();
        let mut regions = PixelCurve::default();
        for image in 0..12_usize {
            let (map, mask) = scene(image);
            pixels.add(&map, &mask);
            regions.add_regions(&map, &mask);
        }
        for (area, expected) in
            [(pixels.area(1.0), NUMPY[0]), (regions.area(0.3), NUMPY[1]), (regions.area(1.0), NUMPY[2])]
        {
            assert!((area.unwrap() - expected).abs() < 1e-12, "{area:?}, expected {expected}");
        }
    }

    /// By NumPy 2.4: `auroc(maps, masks)`, `aupro(maps, masks)` and `aupro(maps, masks, 1)`.
    const NUMPY: [f64; 3] = [0.8212034639264099, 0.5487842570379357, 0.8208441187931494];

    fn scene(image: usize) -> (Vec<f32>, DefectMask) {
        let place = |i: usize| (i / 24, i % 24);
        let marked = |i: usize| {
            let (y, x) = place(i);
            !image.is_multiple_of(3) && ((y / 4 + image) * 7 + (x / 5) * 11).is_multiple_of(5)
        };
        let value = |i: usize| {
            let (y, x) = place(i);
            let noise = (y * y * 31 + x * x * 17 + image * 101 + y * x * 7) % 97;
            (noise + if marked(i) { 40 } else { 0 }) as f32 / 64.0
        };
        let places: Vec<bool> = (0..24 * 24).map(marked).collect();
        ((0..24 * 24).map(value).collect(), mask(24, 24, &places))
    }

    /// Two million distinct values: more than are kept.
    fn many() -> (Vec<f32>, Vec<bool>) {
        // A permutation, so that values come in no order; above 0.5 each, one in 8 is defective, and a bit higher.
        let n = 1 << 21;
        let at = |i: usize| (i * 1_234_567 + 89) % n;
        let is_defect = |i: usize| i % 8 == 3;
        let value = |i: usize| 0.5 + at(i) as f32 / (2 * n) as f32 + if is_defect(i) { 0.125 } else { 0.0 };
        ((0..n).map(value).collect(), (0..n).map(is_defect).collect())
    }

    #[test]
    fn beyond_a_million_values_the_area_is_as_near_as_it_says() {
        let (map, places) = many();
        let mut curve = PixelCurve::default();
        curve.add(&map, &mask(1, map.len(), &places));
        let area = curve.area(1.0).unwrap();
        let uncertainty = curve.uncertainty(1.0).unwrap();
        assert!(curve.dropped > 0 && curve.ties.len() <= MOST && curve.memory() < 32 << 20, "{}", curve.memory());
        assert!(uncertainty > 0.0 && uncertainty < 2e-6, "{uncertainty}");
        // By ranks: pairs won, of all pairs.
        let mut order: Vec<(f32, bool)> = map.into_iter().zip(places).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut twice = 0_u128;
        let mut below = 0_u128;
        for ties in order.chunk_by(|a, b| a.0 == b.0) {
            let defects = ties.iter().filter(|(_, defect)| *defect).count() as u128;
            let normal = ties.len() as u128 - defects;
            twice += defects * (2 * below + normal);
            below += normal;
        }
        let exact = twice as f64 / (2 * (order.len() as u128 - below) * below) as f64;
        assert!((area - exact).abs() <= uncertainty, "{area}, exactly {exact} ± {uncertainty}");
    }

    #[test]
    fn merged_states_are_the_whole() {
        let (map, places) = many();
        let mut whole = PixelCurve::default();
        whole.add(&map, &mask(1, map.len(), &places));
        let third = map.len() / 3;
        let part = |range: std::ops::Range<usize>| {
            let mut part = PixelCurve::default();
            part.add(&map[range.clone()], &mask(1, range.len(), &places[range]));
            let (keys, normal, defective, dropped) = part.into_parts();
            PixelCurve::try_from_parts(&keys, &normal, &defective, dropped).unwrap()
        };
        let mut merged = part(2 * third..map.len());
        merged.merge(part(0..10));
        merged.merge(part(10..2 * third));
        merged.merge(PixelCurve::default());
        assert!(merged.memory() < 32 << 20, "{}", merged.memory());
        assert_eq!((merged.area(0.3), merged.dropped), (whole.area(0.3), whole.dropped));
        assert_eq!(merged.ties, whole.ties);
    }

    #[rstest]
    #[case::unsorted(&[2, 1], &[1, 1], &[0.0, 0.0], 0)]
    #[case::lengths(&[1], &[1, 1], &[0.0], 0)]
    #[case::weights(&[1], &[1], &[f64::NAN], 0)]
    #[case::bits(&[1], &[1], &[0.0], 32)]
    fn damaged_states_are_refused(
        #[case] keys: &[u32],
        #[case] normal: &[u64],
        #[case] defective: &[f64],
        #[case] dropped: u32,
    ) {
        assert!(PixelCurve::try_from_parts(keys, normal, defective, dropped).is_err());
    }
}
