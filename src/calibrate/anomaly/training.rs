//! The statistics of training rows, in the order in which they build on each other: v, then the levels.

use rayon::prelude::*;

use super::{AnomalyStatistics, Covariance, FINE, LEAST, UsualSize, side};
use crate::config::ScoreScale;
use crate::error::Result;
use crate::kernels::{Gaussian, backend};

/// The share of the mean over places that is added to each usual size, so that none is 0.
const FLOOR: f64 = 0.1;
/// The quantile of training rows at which a scale's strangeness is 1.
const QUANTILE: f64 = 0.95;

/// Sums of the terms t of training rows at each place.
#[derive(Debug)]
pub(crate) struct UsualSums {
    places: (usize, usize),
    rows: usize,
    sums: Vec<f64>,
}

impl UsualSums {
    pub(crate) fn new(places: (usize, usize)) -> Self {
        Self { places, rows: 0, sums: vec![0.0; places.0 * places.1] }
    }

    /// Adds the terms of some rows, (N, H, W).
    pub(crate) fn push(&mut self, terms: &[f32]) {
        for row in terms.chunks_exact(self.sums.len()) {
            self.rows += 1;
            self.sums.iter_mut().zip(row).for_each(|(sum, t)| *sum += f64::from(*t));
        }
    }

    /// v: the mean of each place, smoothed, with a tenth of the mean over places. Maps of features are smoothed by one
    /// place: a place of theirs is a patch of an image.
    ///
    /// # Errors
    /// [`Error::Data`](crate::error::Error::Data) if a term was not finite.
    pub(crate) fn usual_size(&self, scales: &[ScoreScale], features: bool) -> Result<UsualSize> {
        let (height, width) = self.places;
        let rows = self.rows.max(1) as f64;
        let mut mean: Vec<f64> = self.sums.iter().map(|sum| sum / rows).collect();
        let sigma = if features { 1.0 } else { side(height, width) / FINE };
        Gaussian::new(height, width, sigma).smooth(backend(), &mut mean);
        let floor = FLOOR * mean.iter().sum::<f64>() / mean.len() as f64;
        let usual = mean.into_iter().map(|v| (v + floor).max(LEAST) as f32).collect();
        UsualSize::try_new(self.places, scales, usual)
    }
}

/// The logarithms of the largest sizes of training rows, a list a scale.
#[derive(Debug)]
pub(crate) struct TrainingSizes {
    usual: UsualSize,
    sizes: Vec<Vec<f64>>,
}

impl TrainingSizes {
    pub(crate) fn new(usual: UsualSize) -> Self {
        Self { sizes: vec![Vec::new(); usual.scales.len()], usual }
    }

    /// Adds some rows by their terms, (N, H, W).
    pub(crate) fn push(&mut self, terms: &[f32]) {
        let rows: Vec<_> =
            terms.par_chunks_exact(self.usual.values.len()).map(|terms| self.usual.log_sizes(terms)).collect();
        for row in rows {
            self.sizes.iter_mut().zip(row).for_each(|(sizes, size)| sizes.push(size));
        }
    }

    /// The statistics, with the covariance of residuals of a model of features.
    pub(crate) fn statistics(self, covariance: Option<Covariance>) -> AnomalyStatistics {
        let level = |mut sizes: Vec<f64>| {
            sizes.sort_by(f64::total_cmp);
            [quantile(&sizes, 0.5) as f32, quantile(&sizes, QUANTILE) as f32]
        };
        AnomalyStatistics { levels: self.sizes.into_iter().map(level).collect(), usual: self.usual, covariance }
    }
}

/// A quantile of sorted values, with linear interpolation between the two nearest; 0 of none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let below = sorted.get(place.floor() as usize).copied().unwrap_or(0.0);
    let above = sorted.get(place.ceil() as usize).copied().unwrap_or(below);
    below + place.fract() * (above - below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.0), quantile(&values, 1.0)), (3.0, 1.0, 8.0));
        assert!((quantile(&values, 0.95) - (4.0 + 0.85 * 4.0)).abs() < 1e-12);
        assert_eq!((quantile(&[5.0], 0.95), quantile(&[], 0.5)), (5.0, 0.0));
    }

    /// A mean of 2 everywhere: smoothing leaves it, and a tenth is added.
    #[test]
    fn usual_sizes_by_hand() {
        let mut sums = UsualSums::new((2, 2));
        sums.push(&[1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0, 0.0]);
        let usual = sums.usual_size(&[ScoreScale::Whole], false).unwrap();
        assert!(usual.values.iter().all(|v| (v - 2.2).abs() < 1e-6), "{:?}", usual.values);
    }

    /// One place, terms 1 to 5 beside v = 3.3: the median is ln(3/3.3), the quantile lies at 4.8 between the logarithms
    /// of 4 and 5.
    #[test]
    fn levels_by_hand() {
        let terms = [5.0, 1.0, 3.0, 2.0, 4.0];
        let mut sums = UsualSums::new((1, 1));
        sums.push(&terms);
        let mut levels = TrainingSizes::new(sums.usual_size(&[ScoreScale::Part(8)], false).unwrap());
        terms.iter().for_each(|term| levels.push(&[*term]));
        let statistics = levels.statistics(None);
        let log = |term: f64| (term / 3.3).ln();
        let expected = [log(3.0), log(4.0) + 0.8 * (log(5.0) - log(4.0))];
        for (got, expected) in statistics.levels().iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-6, "{got}, expected {expected}");
        }
    }

    /// Rows that are rebuilt without any residual: the sizes are at their least, and the statistics can be used.
    #[test]
    fn perfect_reconstructions_have_statistics() {
        let mut sums = UsualSums::new((2, 3));
        sums.push(&[0.0; 12]);
        let mut levels = TrainingSizes::new(sums.usual_size(&ScoreScale::OF_IMAGES, false).unwrap());
        levels.push(&[0.0; 12]);
        let statistics = levels.statistics(None);
        // The levels are rounded to f32, and lie at the least distance.
        assert!(statistics.largest(&[0.0; 6]).abs() < 0.01);
        assert!(statistics.largest(&[1.0; 6]).is_finite());
    }
}
