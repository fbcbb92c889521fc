//! Structural dissimilarity of an image x and its reconstruction y, a value a pixel and channel.
//!
//! ```text
//! SSIM  = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))
//! DSSIM = (1 − SSIM)/2
//! ```
//!
//! Where: means, variances and covariance are over the 7×7 pixels around, those beyond the border being 0 in both images;
//! C₁ = 0.01² and C₂ = 0.03² for pixels in [0, 1]. DSSIM lies in [0, 1]. It compares each neighbourhood's brightness, contrast and
//! pattern relative to how much of them there is, so that a thin stroke in the wrong place counts as much as a bright area.
//!
//! # Source
//! Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13 (2004), equation 13, with a square window for
//! their Gaussian one.

use crate::image::ImageShape;

/// Pixels on each side of a window's centre.
const REACH: usize = 3;
const WINDOW: f32 = ((2 * REACH + 1) * (2 * REACH + 1)) as f32;
const C1: f32 = 0.01 * 0.01;
const C2: f32 = 0.03 * 0.03;

/// The two means of a neighbourhood, and what SSIM's two factors are made of.
struct Statistics {
    mean_x: f32,
    mean_y: f32,
    /// (2 μ_x μ_y + C₁)/d₁ and d₁ = μ_x² + μ_y² + C₁.
    brightness: (f32, f32),
    /// (2 σ_xy + C₂)/d₂ and d₂ = σ_x² + σ_y² + C₂.
    structure: (f32, f32),
}

/// Adds `weight` · DSSIM to each value, (H, W, C).
pub(crate) fn add_dissimilarity(shape: ImageShape, x: &[f32], y: &[f32], weight: f32, values: &mut [f32]) {
    for (value, s) in values.iter_mut().zip(statistics(shape, x, y)) {
        *value += weight * 0.5 * (1.0 - s.brightness.0 * s.structure.0);
    }
}

/// Adds `weight` times the gradient of Σ DSSIM by the reconstruction y, (H, W, C).
pub(crate) fn add_gradient(shape: ImageShape, x: &[f32], y: &[f32], weight: f32, gradient: &mut [f32]) {
    let (mut by_mean, mut by_product, mut by_square) = (Vec::new(), Vec::new(), Vec::new());
    for s in statistics(shape, x, y) {
        let ((l, d1), (c, d2)) = (s.brightness, s.structure);
        // SSIM = l·c, where l depends on y's mean, and c on the means of xy and y² less products of means.
        let (by_covariance, by_variance) = (2.0 * l / d2, -l * c / d2);
        by_mean
            .push(c * 2.0 * (s.mean_x - l * s.mean_y) / d1 - by_covariance * s.mean_x - by_variance * 2.0 * s.mean_y);
        by_product.push(by_covariance);
        by_square.push(by_variance);
    }
    // A mean over a window is its own transpose.
    let (by_mean, by_product, by_square) = (mean(shape, &by_mean), mean(shape, &by_product), mean(shape, &by_square));
    for (i, gradient) in gradient.iter_mut().enumerate() {
        *gradient -= weight * 0.5 * (by_mean[i] + x[i] * by_product[i] + 2.0 * y[i] * by_square[i]);
    }
}

fn statistics(shape: ImageShape, x: &[f32], y: &[f32]) -> impl Iterator<Item = Statistics> {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f32>>();
    let (means_x, means_y) = (mean(shape, x), mean(shape, y));
    let (xx, yy) = (mean(shape, &product(x, x)), mean(shape, &product(y, y)));
    let xy = mean(shape, &product(x, y));
    (0..x.len()).map(move |i| {
        let (mean_x, mean_y) = (means_x[i], means_y[i]);
        // Rounding can leave a variance of nothing just below 0.
        let variances = (xx[i] - mean_x * mean_x).max(0.0) + (yy[i] - mean_y * mean_y).max(0.0);
        let covariance = xy[i] - mean_x * mean_y;
        let (d1, d2) = (mean_x * mean_x + mean_y * mean_y + C1, variances + C2);
        Statistics {
            mean_x,
            mean_y,
            brightness: ((2.0 * mean_x * mean_y + C1) / d1, d1),
            structure: ((2.0 * covariance + C2) / d2, d2),
        }
    })
}

/// The mean over the window around each pixel, a side at a time: (H, W, C) → the same.
fn mean(shape: ImageShape, values: &[f32]) -> Vec<f32> {
    let row = shape.width() * shape.channels();
    let mut tall = vec![0.0; values.len()];
    for (y, sums) in tall.chunks_exact_mut(row).enumerate() {
        for near in y.saturating_sub(REACH)..(y + REACH + 1).min(shape.height()) {
            sums.iter_mut().zip(&values[near * row..]).for_each(|(s, v)| *s += v);
        }
    }
    let mut means = vec![0.0; values.len()];
    for (tall, sums) in tall.chunks_exact(row).zip(means.chunks_exact_mut(row)) {
        for (x, sums) in sums.chunks_exact_mut(shape.channels()).enumerate() {
            for near in x.saturating_sub(REACH)..(x + REACH + 1).min(shape.width()) {
                sums.iter_mut().zip(&tall[near * shape.channels()..]).for_each(|(s, v)| *s += v);
            }
            sums.iter_mut().for_each(|s| *s /= WINDOW);
        }
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dissimilarity(shape: ImageShape, x: &[f32], y: &[f32]) -> Vec<f32> {
        let mut values = vec![0.0; x.len()];
        add_dissimilarity(shape, x, y, 1.0, &mut values);
        values
    }

    #[test]
    fn an_image_is_like_itself() {
        let x: Vec<f32> = (0..2 * 81).map(|i| (i * i % 17) as f32 / 17.0).collect();
        assert!(dissimilarity(ImageShape::new(9, 9, 2), &x, &x).iter().all(|d| d.abs() < 1e-6));
    }

    /// Two flat images: no variance inside, so that the centre sees brightness alone, (2ab + C₁)/(a² + b² + C₁).
    #[test]
    fn flat_images_by_hand() {
        let got = dissimilarity(ImageShape::new(7, 7, 1), &[0.5; 49], &[0.25; 49])[24];
        let expected = (1.0 - (0.25 + 1e-4) / (0.3125 + 1e-4)) / 2.0;
        assert!((got - expected).abs() < 1e-4, "{got}, expected {expected}");
    }

    /// One window over a whole image of one row: 7 pixels of 49, the others 0. x has a 1, y the negative pattern's 0:
    /// μ_x = 1/49, σ_x² = 1/49 − 1/49², and SSIM = C₁/(μ_x² + C₁) · C₂/(σ_x² + C₂).
    #[test]
    fn a_pattern_that_is_missing_by_hand() {
        let mut x = [0.0; 7];
        x[3] = 1.0;
        let got = dissimilarity(ImageShape::new(1, 7, 1), &x, &[0.0; 7])[3];
        let (mean, c1, c2) = (1.0 / 49.0_f64, 1e-4, 9e-4);
        let ssim = c1 / (mean * mean + c1) * c2 / (mean - mean * mean + c2);
        assert!((f64::from(got) - (1.0 - ssim) / 2.0).abs() < 1e-5, "{got}, expected {}", (1.0 - ssim) / 2.0);
    }
}
