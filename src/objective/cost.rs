//! Reconstruction costs of an image x and its reconstruction y, pixels in [0, 1].
//!
//! ```text
//! squared:     Σ (x − y)²
//! l2:          √(1e-8 + Σ (x − y)²)
//! l1:          Σ |x − y|
//! structural:  Σ (x − y)² + ½ DSSIM
//! ```
//!
//! Where: Σ is over pixels and channels, a **sum** and never a mean; in training, costs are averaged over the batch.
//! DSSIM is the structural dissimilarity around a pixel (`ssim.rs`). The authors' code multiplies squared, l2 and l1 by
//! 0.05, 0.2 and 0.02, so that a λ of theirs is divided by that here.
//!
//! # Source
//! The authors' `wae.py`, `reconstruction_loss`; `golden/reference.py`, `squared_cost`.

use rayon::prelude::*;

use super::ssim;
use crate::config::{Config, Cost};
use crate::image::ImageShape;

/// Keeps the root's slope finite at 0.
pub(crate) const ROOT_FLOOR: f64 = 1e-8;
/// The weight of DSSIM: on Fashion-MNIST, reconstructions of other classes than the one trained on are told best with
/// weights about this one, and worse with either term alone.
pub(crate) const DISSIMILARITY: f32 = 0.5;

/// A cost for images of one shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CostFunction {
    kind: Cost,
    shape: ImageShape,
}

impl CostFunction {
    pub(crate) fn new(kind: Cost, shape: ImageShape) -> Self {
        Self { kind, shape }
    }

    /// The cost of a model's configuration.
    pub(crate) fn of(config: &Config) -> Self {
        Self::new(config.cost(), config.image())
    }

    /// The kind of cost.
    pub(crate) fn kind(&self) -> Cost {
        self.kind
    }

    /// The cost of one image, summed in f64.
    pub(crate) fn value(&self, x: &[f32], y: &[f32]) -> f64 {
        let squared = || x.iter().zip(y).map(|(x, y)| f64::from(x - y) * f64::from(x - y)).sum::<f64>();
        match self.kind {
            Cost::Squared => squared(),
            Cost::L2 => (ROOT_FLOOR + squared()).sqrt(),
            Cost::L1 => x.iter().zip(y).map(|(x, y)| f64::from((x - y).abs())).sum(),
            Cost::Structural => self.terms(x, y).into_iter().map(f64::from).sum(),
        }
    }

    /// The term of each pixel and channel in the cost, (H, W, C); for l2, in its square.
    pub(crate) fn terms(&self, x: &[f32], y: &[f32]) -> Vec<f32> {
        let pairs = x.iter().zip(y);
        match self.kind {
            Cost::Squared | Cost::L2 => pairs.map(|(x, y)| (x - y) * (x - y)).collect(),
            Cost::L1 => pairs.map(|(x, y)| (x - y).abs()).collect(),
            Cost::Structural => {
                let mut terms: Vec<f32> = pairs.map(|(x, y)| (x - y) * (x - y)).collect();
                ssim::add_dissimilarity(self.shape, x, y, DISSIMILARITY, &mut terms);
                terms
            }
        }
    }

    /// Writes `scale` times the gradient by the reconstruction y of one image.
    fn gradient(&self, x: &[f32], y: &[f32], scale: f32, gradient: &mut [f32]) {
        let linear = |scale: f32, gradient: &mut [f32]| {
            gradient.iter_mut().zip(x.iter().zip(y)).for_each(|(g, (x, y))| *g = scale * (y - x));
        };
        match self.kind {
            Cost::Squared => linear(2.0 * scale, gradient),
            Cost::L2 => linear(scale / self.value(x, y) as f32, gradient),
            Cost::L1 => {
                // The derivative at 0 is 0.
                let slope = |x: &f32, y: &f32| if x == y { 0.0 } else { scale * (y - x).signum() };
                gradient.iter_mut().zip(x.iter().zip(y)).for_each(|(g, (x, y))| *g = slope(x, y));
            }
            Cost::Structural => {
                linear(2.0 * scale, gradient);
                ssim::add_gradient(self.shape, x, y, DISSIMILARITY * scale, gradient);
            }
        }
    }

    /// The mean cost of a batch of n images, and its gradient by the reconstructions.
    ///
    /// # Shapes
    /// (n, H, W, C) twice → () and (n, H, W, C).
    pub(crate) fn mean(&self, x: &[f32], y: &[f32], n: usize) -> (f64, Vec<f32>) {
        let len = self.shape.len();
        let scale = 1.0 / n as f32;
        let mut gradient = vec![0.0; y.len()];
        let images = x.par_chunks_exact(len).zip(y.par_chunks_exact(len)).zip(gradient.par_chunks_exact_mut(len));
        let costs: Vec<f64> = images
            .map(|((x, y), gradient)| {
                self.gradient(x, y, scale, gradient);
                self.value(x, y)
            })
            .collect();
        (costs.iter().sum::<f64>() / n as f64, gradient)
    }
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

    /// The squared cost of 1.25, and half of each pixel's dissimilarity.
    #[test]
    fn structural_adds_half_the_dissimilarity() {
        let x = [1.0, 0.0, 0.5];
        let y = [0.0; 3];
        let structural = CostFunction::new(Cost::Structural, SHAPE);
        let mut dissimilarity = [0.0; 3];
        ssim::add_dissimilarity(SHAPE, &x, &y, 1.0, &mut dissimilarity);
        let expected = 1.25 + 0.5 * dissimilarity.iter().sum::<f32>();
        assert!((structural.value(&x, &y) - f64::from(expected)).abs() < 1e-6);
        let terms = structural.terms(&x, &y);
        assert!((f64::from(terms.iter().sum::<f32>()) - structural.value(&x, &y)).abs() < 1e-6);
    }

    #[test]
    fn a_mean_over_the_batch() {
        let squared = CostFunction::new(Cost::Squared, ImageShape::new(1, 2, 1));
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
        let pixels = |seed| {
            sample(Prior::default(), 2, shape.len(), seed).iter().map(|v| (v / 4.0 + 0.5).clamp(0.0, 1.0)).collect()
        };
        let (x, y): (Vec<f32>, Vec<f32>) = (pixels(1), pixels(2));
        let (_, gradient) = function.mean(&x, &y, 2);
        let largest = gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        for i in 0..y.len() {
            let shifted = |h: f32| {
                let mut y = y.clone();
                y[i] += h;
                (f64::from(y[i]), function.mean(&x, &y, 2).0)
            };
            let ((low, below), (high, above)) = (shifted(-1e-3), shifted(1e-3));
            let numeric = (above - below) / (high - low);
            let error = (numeric - f64::from(gradient[i])).abs();
            assert!(error < 0.01 * f64::from(largest), "{i}: {numeric}, {}", gradient[i]);
        }
    }
}
