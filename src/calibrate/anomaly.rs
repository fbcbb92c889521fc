//! The anomaly map: how strange each place of an image is, in units of what is usual there.
//!
//! ```text
//! u₀(p)  = t(p) / v(p)
//! u_s(p) = u₀ smoothed with σ = side/s,   or N · ũ(p) / max_q ũ(q), where ũ is u₀ smoothed with σ = side/32 and
//!          N = mean_q ũ(q) at the scale `mean`, (mean_q ũ(q)⁴)^¼ at the scale `whole`
//! f(p)   = max_s (ln u_s(p) − m_s) / (q_s − m_s)
//! a(p)   = ½ (1 + d/(1 + |d|)),   d = f(p) − f₀
//! ```
//!
//! Where: t(p) is the term of a place in the cost of the reconstruction, of an image Σ_c r² + ½ DSSIM, of features
//! |L⁻¹ r|² with the Cholesky factor L of the covariance of training residuals; v(p) is its mean over training rows,
//! smoothed, with a tenth of the mean over places added; side is √(H·W); m_s and q_s are the median and the 95 %
//! quantile over training rows of ln max_p u_s(p); f₀ is the threshold of the held-out rows at α = 0.01. v and u_s are
//! at least 1e-12, and q_s − m_s at least 1e-3.
//!
//! An image is as strange as the strangest of its places: its anomaly score is max_p a(p). The cost sums over places,
//! so that a small defect is lost in what is hard to rebuild everywhere; the division by v takes that out. A maximum
//! alone would miss images that are a bit strange all over, which the scales `mean` and `whole` see. Their largest value
//! is N, and the other places stand below it as they do in ũ, so that the map still shows where.
//!
//! Nothing before f₀ sees a held-out row, and a(p) rises with f(p): p-values of f are exact.

mod covariance;
mod training;

pub(crate) use self::covariance::Covariance;
pub(crate) use self::training::{TrainingSizes, UsualSums};
use crate::config::ScoreScale;
use crate::error::{Error, Result};
use crate::kernels::{Gaussian, backend};

/// The least value of v and of u.
const LEAST: f64 = 1e-12;
/// The least distance of a scale's two levels.
const LEAST_SPREAD: f64 = 1e-3;
/// The side divided by this is the standard deviation of the smoothing of v, and of the scales `mean` and `whole`.
const FINE: f64 = 32.0;

/// Statistics of training rows at each place and at each scale, beside which an image is strange.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyStatistics {
    usual: UsualSize,
    /// m and q of each scale.
    levels: Vec<[f32; 2]>,
    covariance: Option<Covariance>,
}

impl AnomalyStatistics {
    /// Statistics as a file holds them.
    ///
    /// # Shapes
    /// `usual` (H, W); `levels` (S, 2): the median and the 95 % quantile of each scale; `covariance` (C, C), of features.
    ///
    /// # Errors
    /// [`Error::Data`] if a usual size is not positive, a level's quantile is below its median, or the covariance is not
    /// symmetric and positive definite.
    pub(crate) fn try_new(
        places: (usize, usize),
        scales: &[ScoreScale],
        usual: Vec<f32>,
        levels: &[f32],
        covariance: Option<Covariance>,
    ) -> Result<Self> {
        let usual = UsualSize::try_new(places, scales, usual)?;
        let levels = levels.as_chunks::<2>().0.to_vec();
        match levels.iter().find(|[median, quantile]| median > quantile) {
            Some([median, quantile]) => {
                Err(Error::Data(format!("a scale has the median {median} above its quantile {quantile}")))
            }
            None => Ok(Self { usual, levels, covariance }),
        }
    }

    /// The usual size of the term at each place, (H, W).
    pub(crate) fn usual(&self) -> &[f32] {
        &self.usual.values
    }

    /// The median and the 95 % quantile of each scale, (S, 2).
    pub(crate) fn levels(&self) -> &[f32] {
        self.levels.as_flattened()
    }

    /// The covariance of training residuals, of a model of features.
    pub(crate) fn covariance(&self) -> Option<&Covariance> {
        self.covariance.as_ref()
    }

    /// f at each place of one image, from the terms t, (H, W). Its maximum is [`Self::largest`].
    pub(crate) fn field(&self, terms: &[f32]) -> AnomalyField {
        let sizes = self.usual.relative(terms);
        let of_scales = self.largest_of_scales(&sizes);
        let largest = of_scales.iter().map(|(_, f)| *f).fold(f32::NEG_INFINITY, f32::max);
        let at = |place: usize| {
            let of_scales = sizes.iter().zip(&self.levels).map(|(size, level)| strangeness(size[place], level));
            // Where the logarithm of a smaller size is rounded to a larger one, the maximum stays the maximum.
            of_scales.fold(f32::NEG_INFINITY, f32::max).min(largest)
        };
        let of_parts = of_scales.iter().filter(|(scale, _)| scale.is_part()).map(|(_, f)| *f);
        AnomalyField {
            values: (0..terms.len()).map(at).collect(),
            largest,
            of_parts: of_parts.fold(f32::NEG_INFINITY, f32::max),
        }
    }

    /// max_p f(p) of one image.
    pub(crate) fn largest(&self, terms: &[f32]) -> f32 {
        let of_scales = self.largest_of_scales(&self.usual.relative(terms));
        of_scales.into_iter().map(|(_, f)| f).fold(f32::NEG_INFINITY, f32::max)
    }

    /// The largest value at each scale.
    fn largest_of_scales(&self, sizes: &[Vec<f64>]) -> Vec<(ScoreScale, f32)> {
        let scales = self.usual.scales.iter().map(|(scale, _)| *scale);
        scales
            .zip(sizes.iter().zip(&self.levels))
            .map(|(scale, (u, level))| (scale, strangeness(largest(u), level)))
            .collect()
    }
}

/// The anomaly map of one image before it is scaled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnomalyField {
    /// f at each place, (H, W).
    pub(crate) values: Vec<f32>,
    /// The largest of them.
    pub(crate) largest: f32,
    /// The largest value at the scales that look at parts of the image; −∞ without any.
    pub(crate) of_parts: f32,
}

/// The anomaly maps of images before they are scaled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnomalyFields {
    /// f at each place, (N, H, W).
    pub values: Vec<f32>,
    /// The largest value of each image, (N,): its anomaly score as p-values rank it.
    pub largest: Vec<f32>,
    /// The largest value of each image at the scales that look at parts of it, (N,); −∞ where the model has none. An image
    /// above a threshold whose parts are not is strange only as a whole.
    pub of_parts: Vec<f32>,
}

impl AnomalyFields {
    /// The maps of images, end to end.
    pub(crate) fn of(fields: Vec<AnomalyField>) -> Self {
        let largest = fields.iter().map(|field| field.largest).collect();
        let of_parts = fields.iter().map(|field| field.of_parts).collect();
        let values: Vec<_> = fields.into_iter().map(|field| field.values).collect();
        Self { values: values.concat(), largest, of_parts }
    }
}

/// (ln u − m)/(q − m).
fn strangeness(size: f64, &[median, quantile]: &[f32; 2]) -> f32 {
    let median = f64::from(median);
    let spread = (f64::from(quantile) - median).max(LEAST_SPREAD);
    ((size.ln() - median) / spread) as f32
}

/// The largest value of a map, which has no NaN.
fn largest(map: &[f64]) -> f64 {
    map.iter().copied().fold(LEAST, f64::max)
}

/// The mean over a map's places of a function of their values.
fn mean(map: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    map.iter().map(|u| of(*u)).sum::<f64>() / map.len() as f64
}

/// Multiplies a map, so that its largest value is `most` to the bit.
fn raise_to(most: f64, map: &mut [f64]) {
    let largest = largest(map);
    map.iter_mut().for_each(|u| *u = most * (*u / largest));
}

/// The usual size of the term at each place, and the scales at which sizes beside it are smoothed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UsualSize {
    /// v, (H, W).
    values: Vec<f32>,
    scales: Vec<(ScoreScale, Gaussian)>,
}

impl UsualSize {
    fn try_new((height, width): (usize, usize), scales: &[ScoreScale], values: Vec<f32>) -> Result<Self> {
        if let Some(value) = values.iter().find(|value| !(**value > 0.0 && value.is_finite())) {
            return Err(Error::Data(format!("a usual size is {value}, expected a number above 0")));
        }
        let side = side(height, width);
        let smoothing = |scale: &ScoreScale| match scale {
            ScoreScale::Part(divisor) => side / *divisor as f64,
            ScoreScale::Mean | ScoreScale::Whole => side / FINE,
        };
        let scales = scales.iter().map(|scale| (*scale, Gaussian::new(height, width, smoothing(scale)))).collect();
        Ok(Self { values, scales })
    }

    /// u_s of each scale, (S, H, W), at least 1e-12, from the terms t of one image, (H, W).
    fn relative(&self, terms: &[f32]) -> Vec<Vec<f64>> {
        let relative: Vec<f64> = terms.iter().zip(&self.values).map(|(t, v)| f64::from(*t) / f64::from(*v)).collect();
        let backend = backend();
        let at_scale = |(scale, gaussian): &(ScoreScale, Gaussian)| {
            let mut size = relative.clone();
            gaussian.smooth(backend, &mut size);
            match scale {
                ScoreScale::Part(_) => {}
                ScoreScale::Mean => raise_to(mean(&size, |u| u), &mut size),
                ScoreScale::Whole => raise_to(mean(&size, |u| u * u * (u * u)).sqrt().sqrt(), &mut size),
            }
            size.iter_mut().for_each(|u| *u = u.max(LEAST));
            size
        };
        self.scales.iter().map(at_scale).collect()
    }

    /// ln max_p u_s(p) of each scale, from the terms of one image.
    fn log_sizes(&self, terms: &[f32]) -> Vec<f64> {
        self.relative(terms).iter().map(|size| largest(size).ln()).collect()
    }
}

/// The side of a square with as many places.
fn side(height: usize, width: usize) -> f64 {
    ((height * width) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SCALES: [ScoreScale; 2] = [ScoreScale::Part(64), ScoreScale::Whole];

    /// One place: no smoothing, the whole is the place. f = max((ln 4 − 0)/1, (ln 4 − ln 2)/(ln 4 − ln 2)) = ln 4.
    #[test]
    fn one_place_by_hand() {
        let ln2 = 2.0_f32.ln();
        let statistics = AnomalyStatistics::try_new((1, 1), &SCALES, vec![0.5], &[0.0, 1.0, ln2, 2.0 * ln2], None);
        let statistics = statistics.unwrap();
        let field = statistics.field(&[2.0]);
        assert!((field.values[0] - 4.0_f32.ln()).abs() < 1e-6, "{field:?}");
        assert_eq!(statistics.largest(&[2.0]), field.values[0]);
        // The whole is as strange: (2 ln 2 − ln 2)/ln 2 = 1 of it, ln 4 of the part.
        assert_eq!(field.of_parts, field.values[0]);
        // Nothing is strange about a term of 0: ln 1e-12 at both scales.
        let none = statistics.largest(&[0.0]);
        assert!((none - ((1e-12_f32).ln() - ln2) / ln2).abs() > 1.0 && none < -20.0, "{none}");
    }

    /// Four places far apart for the smoothing: u₀ = 1, 1, 1, 3. The mean is 1.5 and the whole ((3 + 81)/4)^¼ at the
    /// last place, a third of that at the others.
    #[rstest]
    #[case::mean(ScoreScale::Mean, 1.5)]
    #[case::whole(ScoreScale::Whole, 21.0_f32.powf(0.25))]
    fn all_places_together_are_a_norm_at_the_strangest(#[case] scale: ScoreScale, #[case] norm: f32) {
        let statistics = AnomalyStatistics::try_new((2, 2), &[scale], vec![2.0; 4], &[0.0, 1.0], None).unwrap();
        let field = statistics.field(&[2.0, 2.0, 2.0, 6.0]);
        assert_eq!(field.of_parts, f32::NEG_INFINITY);
        for (f, expected) in field.values.iter().zip([norm / 3.0, norm / 3.0, norm / 3.0, norm]) {
            assert!((f - expected.ln()).abs() < 1e-6, "{field:?}");
        }
    }

    #[test]
    fn the_score_is_the_largest_place() {
        let terms: Vec<f32> = (0..28 * 28).map(|i| (i * i % 101) as f32 / 50.0).collect();
        let usual: Vec<f32> = (0..28 * 28).map(|i| 0.1 + (i % 7) as f32).collect();
        let scales = [ScoreScale::Part(8), ScoreScale::Part(16), ScoreScale::Mean, ScoreScale::Whole];
        let levels = [0.1, 0.4, -0.2, 0.3, 1.0, 2.0, 5.0, 6.0];
        let statistics = AnomalyStatistics::try_new((28, 28), &scales, usual, &levels, None).unwrap();
        let AnomalyField { values: field, largest, .. } = statistics.field(&terms);
        assert_eq!(largest, statistics.largest(&terms));
        assert_eq!(field.iter().copied().fold(f32::NEG_INFINITY, f32::max), statistics.largest(&terms));
        assert!(field.iter().any(|f| *f < statistics.largest(&terms)));
    }

    #[test]
    fn impossible_statistics_are_refused() {
        let error = |usual: Vec<f32>, levels: &[f32]| {
            AnomalyStatistics::try_new((1, 2), &[ScoreScale::Whole], usual, levels, None).unwrap_err().to_string()
        };
        assert_eq!(error(vec![1.0, 0.0], &[0.0, 1.0]), "a usual size is 0, expected a number above 0");
        assert_eq!(error(vec![-1.0, 1.0], &[0.0, 1.0]), "a usual size is -1, expected a number above 0");
        assert_eq!(error(vec![1.0, 1.0], &[2.0, 1.0]), "a scale has the median 2 above its quantile 1");
    }
}
