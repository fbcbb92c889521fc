//! Reconstruction costs of an image x and its reconstruction y, pixels in [0, 1].
//!
//! ```text
//! squared:     Σ (x − y)²
//! l2:          √(1e-8 + Σ (x − y)²)
//! l1:          Σ |x − y|
//! structural:  Σ_j 4^j ‖L_j(x − y)‖₁,  L_j the levels of a Laplacian pyramid
//! ```
//!
//! Where: Σ is over pixels and channels, a **sum** and never a mean; in training, costs are averaged over the batch. The
//! authors' code multiplies squared, l2 and l1 by 0.05, 0.2 and 0.02: λ here is that many times smaller a divisor.
//!
//! # Source
//! The authors' `wae.py`, `reconstruction_loss`; `golden/reference.py`, `squared_cost`; for the pyramid, see `pyramid.rs`.

use rayon::prelude::*;

use super::pyramid::Pyramid;
use crate::config::{Config, Cost};
use crate::image::ImageShape;

/// Keeps the root's slope finite at 0.
const ROOT_FLOOR: f64 = 1e-8;

/// A cost for images of one shape.
#[derive(Debug)]
pub(crate) enum CostFunction {
    Squared,
    L2,
    L1,
    Structural(Pyramid),
}

impl CostFunction {
    pub(crate) fn new(cost: Cost, shape: ImageShape) -> Self {
        match cost {
            Cost::Squared => Self::Squared,
            Cost::L2 => Self::L2,
            Cost::L1 => Self::L1,
            Cost::Structural => Self::Structural(Pyramid::new(shape)),
        }
    }

    /// The cost of a model's configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self::new(config.cost(), config.image())
    }

    /// The cost of one image, summed in f64.
    pub(crate) fn value(&self, x: &[f32], y: &[f32]) -> f64 {
        let squared = || x.iter().zip(y).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum::<f64>();
        match self {
            Self::Squared => squared(),
            Self::L2 => (ROOT_FLOOR + squared()).sqrt(),
            Self::L1 => x.iter().zip(y).map(|(x, y)| f64::from((x - y).abs())).sum(),
            Self::Structural(pyramid) => pyramid.norm(&difference(x, y)),
        }
    }

    /// Writes `scale` times the gradient by the reconstruction y of one image.
    fn gradient(&self, x: &[f32], y: &[f32], scale: f64, gradient: &mut [f32]) {
        let pairs = gradient.iter_mut().zip(x.iter().zip(y));
        match self {
            Self::Squared => {
                let scale = (2.0 * scale) as f32;
                pairs.for_each(|(g, (x, y))| *g = scale * (y - x));
            }
            Self::L2 => {
                let scale = (scale / self.value(x, y)) as f32;
                pairs.for_each(|(g, (x, y))| *g = scale * (y - x));
            }
            Self::L1 => {
                let scale = scale as f32;
                // The derivative at 0 is 0.
                pairs.for_each(|(g, (x, y))| *g = if x == y { 0.0 } else { scale * (y - x).signum() });
            }
            Self::Structural(pyramid) => {
                let by_difference = pyramid.gradient(&difference(x, y));
                gradient.iter_mut().zip(by_difference).for_each(|(g, d)| *g = -(scale as f32) * d);
            }
        }
    }

    /// The mean cost of a batch of n images, and its gradient by the reconstructions.
    ///
    /// # Shapes
    /// (n, H, W, C) twice → () and (n, H, W, C).
    pub(crate) fn mean(&self, x: &[f32], y: &[f32], n: usize) -> (f64, Vec<f32>) {
        let len = x.len() / n;
        let mut gradient = vec![0.0; y.len()];
        let images = x.par_chunks_exact(len).zip(y.par_chunks_exact(len)).zip(gradient.par_chunks_exact_mut(len));
        let costs: Vec<f64> = images
            .map(|((x, y), gradient)| {
                self.gradient(x, y, 1.0 / n as f64, gradient);
                self.value(x, y)
            })
            .collect();
        (costs.iter().sum::<f64>() / n as f64, gradient)
    }
}

fn difference(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x - y).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::Prior;
    use crate::objective::sample;

    const SHAPE: ImageShape = ImageShape::new(1, 3, 1);

    /// Differences of 1, 0 and ½: sums over pixels, whose mean would be a third of them.
    #[rstest]
    #[case(Cost::Squared, 1.25)]
    #[case(Cost::L2, 1.25_f64.sqrt())]
    #[case(Cost::L1, 1.5)]
    fn a_sum_over_pixels(#[case] cost: Cost, #[case] expected: f64) {
        let got = CostFunction::new(cost, SHAPE).value(&[1.0, 0.0, 0.5], &[0.0, 0.0, 0.0]);
        assert!((got - expected).abs() < 1e-8, "{got}");
    }

    #[test]
    fn a_mean_over_the_batch() {
        let squared = CostFunction::Squared;
        assert_eq!(squared.mean(&[1.0, 0.0, 0.5, 0.5], &[0.0; 4], 2), (0.75, vec![-1.0, 0.0, -0.5, -0.5]));
    }

    #[rstest]
    #[case(Cost::Squared)]
    #[case(Cost::L2)]
    #[case(Cost::L1)]
    #[case(Cost::Structural)]
    fn the_gradient_agrees_with_finite_differences(#[case] cost: Cost) {
        let shape = ImageShape::new(9, 6, 2);
        let function = CostFunction::new(cost, shape);
        let (x, y) = (sample(Prior::default(), 2, shape.len(), 1), sample(Prior::default(), 2, shape.len(), 2));
        let (_, gradient) = function.mean(&x, &y, 2);
        let largest = gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        for i in 0..y.len() {
            let shifted = |h: f32| {
                let mut y = y.clone();
                y[i] += h;
                (f64::from(y[i]), function.mean(&x, &y, 2).0)
            };
            let ((low, below), (high, above)) = (shifted(-1e-4), shifted(1e-4));
            let numeric = (above - below) / (high - low);
            let error = (numeric - f64::from(gradient[i])).abs();
            assert!(error < 0.01 * f64::from(largest), "{i}: {numeric}, {}", gradient[i]);
        }
    }
}
