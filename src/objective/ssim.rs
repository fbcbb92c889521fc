//! Structural dissimilarity of an image x and its reconstruction y, a value a pixel and channel.
//!
//! ```text
//! SSIM  = (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))
//! DSSIM = (1 − SSIM)/2
//! ```
//!
//! Where: means, variances and covariance are over the 7×7 pixels around, those beyond the border being 0 in both
//! images; C₁ = 0.01² and C₂ = 0.03² for pixels in [0, 1]. DSSIM lies in [0, 1]. It compares each neighbourhood's
//! brightness, contrast and pattern relative to how much of them there is, so that a thin stroke in the wrong place
//! counts as much as a bright area.
//!
//! # Source
//! Wang, Bovik, Sheikh and Simoncelli, IEEE Transactions on Image Processing 13 (2004), equation 13, with a square
//! window for their Gaussian one.

use crate::image::ImageShape;

/// Pixels on each side of a window's centre.
pub(crate) const REACH: usize = 3;
const WINDOW: f32 = ((2 * REACH + 1) * (2 * REACH + 1)) as f32;
/// Keeps SSIM's first factor finite on dark windows.
pub(crate) const C1: f32 = 0.01 * 0.01;
/// Keeps SSIM's second factor finite on flat windows.
pub(crate) const C2: f32 = 0.03 * 0.03;

/// Means over the window around each pixel, (H, W, C) each. SSIM takes the variances of both images together only.
struct WindowMeans {
    x: Vec<f32>,
    y: Vec<f32>,
    squares: Vec<f32>,
    products: Vec<f32>,
}

impl WindowMeans {
    fn new(window: &mut Window, x: &[f32], y: &[f32]) -> Self {
        let pairs = || x.iter().zip(y);
        let squares: Vec<f32> = pairs().map(|(x, y)| x * x + y * y).collect();
        let products: Vec<f32> = pairs().map(|(x, y)| x * y).collect();
        Self { x: window.mean(x), y: window.mean(y), squares: window.mean(&squares), products: window.mean(&products) }
    }

    fn pixels(&self) -> impl Iterator<Item = SsimFactors> {
        let means = self.x.iter().zip(&self.y).zip(self.squares.iter().zip(&self.products));
        means.map(|((x, y), (squares, products))| SsimFactors::new(*x, *y, *squares, *products))
    }
}

/// SSIM's two factors, with their denominators.
struct SsimFactors {
    mean_x: f32,
    mean_y: f32,
    /// (2 μ_x μ_y + C₁)/d₁ and d₁ = μ_x² + μ_y² + C₁.
    brightness: (f32, f32),
    /// (2 σ_xy + C₂)/d₂ and d₂ = σ_x² + σ_y² + C₂.
    structure: (f32, f32),
}

impl SsimFactors {
    fn new(mean_x: f32, mean_y: f32, squares: f32, products: f32) -> Self {
        let of_means = mean_x * mean_x + mean_y * mean_y;
        // Rounding can leave a variance of nothing just below 0.
        let d1 = of_means + C1;
        let d2 = (squares - of_means).max(0.0) + C2;
        let mean_product = mean_x * mean_y;
        let covariance = products - mean_x * mean_y;
        Self {
            mean_x,
            mean_y,
            brightness: ((2.0 * mean_product + C1) / d1, d1),
            structure: ((2.0 * covariance + C2) / d2, d2),
        }
    }
}

/// Adds `weight` · DSSIM to each value, (H, W, C).
pub(crate) fn add_dissimilarity(shape: ImageShape, x: &[f32], y: &[f32], weight: f32, values: &mut [f32]) {
    let means = WindowMeans::new(&mut Window::new(shape), x, y);
    for (value, s) in values.iter_mut().zip(means.pixels()) {
        *value += weight * 0.5 * (1.0 - s.brightness.0 * s.structure.0);
    }
}

/// Adds `weight` times the gradient of Σ DSSIM by the reconstruction y, (H, W, C).
pub(crate) fn add_gradient(shape: ImageShape, x: &[f32], y: &[f32], weight: f32, gradient: &mut [f32]) {
    let mut window = Window::new(shape);
    let means = WindowMeans::new(&mut window, x, y);
    let mut by_mean = Vec::new();
    let mut by_product = Vec::new();
    let mut by_square = Vec::new();
    for s in means.pixels() {
        let ((l, d1), (c, d2)) = (s.brightness, s.structure);
        // SSIM = l·c, where l depends on y's mean, and c on the means of xy and y² less products of means.
        let by_covariance = 2.0 * l / d2;
        let by_variance = -l * c / d2;
        by_mean
            .push(c * 2.0 * (s.mean_x - l * s.mean_y) / d1 - by_covariance * s.mean_x - by_variance * 2.0 * s.mean_y);
        by_product.push(by_covariance);
        by_square.push(by_variance);
    }
    // A mean over a window is its own transpose.
    let by_mean = window.mean(&by_mean);
    let by_product = window.mean(&by_product);
    let by_square = window.mean(&by_square);
    for (i, gradient) in gradient.iter_mut().enumerate() {
        *gradient -= weight * 0.5 * (by_mean[i] + x[i] * by_product[i] + 2.0 * y[i] * by_square[i]);
    }
}

/// Sums over windows, on an image with a border of zeros, where each tap is one pass over contiguous values.
struct Window {
    shape: ImageShape,
    /// Values between a pixel and the one below.
    stride: usize,
    image: Vec<f32>,
    threes: Vec<f32>,
    sevens: Vec<f32>,
}

impl Window {
    fn new(shape: ImageShape) -> Self {
        let stride = (shape.width() + 2 * REACH) * shape.channels();
        let zeros = vec![0.0; stride * (shape.height() + 2 * REACH)];
        Self { shape, stride, image: zeros.clone(), threes: zeros.clone(), sevens: zeros }
    }

    /// The mean over the window around each pixel: (H, W, C) → the same.
    fn mean(&mut self, values: &[f32]) -> Vec<f32> {
        let row = self.shape.width() * self.shape.channels();
        let left = REACH * self.shape.channels();
        for (padded, row) in self.image.chunks_exact_mut(self.stride).skip(REACH).zip(values.chunks_exact(row)) {
            padded[left..left + row.len()].copy_from_slice(row);
        }
        sevens(&self.image, &mut self.threes, &mut self.sevens, self.stride);
        // Sums lie at a window's first pixel: what is above and left of a pixel by its reach. The last rows of `sevens`
        // were not written in this pass, and are not read below.
        let columns = self.stride * self.shape.height();
        let tall = &self.sevens[..columns];
        let mut wide = vec![0.0; columns];
        sevens(tall, &mut self.threes[..columns], &mut wide, self.shape.channels());
        let mut means = Vec::with_capacity(values.len());
        for sums in wide.chunks_exact(self.stride) {
            means.extend(sums[..row].iter().map(|sum| sum / WINDOW));
        }
        means
    }
}

/// Sums of seven values that lie `step` apart, at the first of them, as far as there are seven: three, three and one.
fn sevens(values: &[f32], threes: &mut [f32], sevens: &mut [f32], step: usize) {
    let len = values.len().saturating_sub(2 * step);
    let taps = values[..len].iter().zip(&values[step..]).zip(&values[2 * step..]);
    threes.iter_mut().zip(taps).for_each(|(sum, ((a, b), c))| *sum = a + b + c);
    let len = values.len().saturating_sub(6 * step);
    let taps = threes[..len].iter().zip(&threes[3 * step..]).zip(&values[6 * step..]);
    sevens.iter_mut().zip(taps).for_each(|(sum, ((a, b), c))| *sum = a + b + c);
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
        let mean = 1.0 / 49.0_f64;
        let c1 = 1e-4;
        let c2 = 9e-4;
        let ssim = c1 / (mean * mean + c1) * c2 / (mean - mean * mean + c2);
        assert!((f64::from(got) - (1.0 - ssim) / 2.0).abs() < 1e-5, "{got}, expected {}", (1.0 - ssim) / 2.0);
    }

    /// Every window's sum against its definition, borders, channels and narrow images included.
    #[rstest::rstest]
    #[case(9, 5, 2)]
    #[case(1, 1, 1)]
    #[case(3, 12, 3)]
    fn means_are_those_of_windows(#[case] height: usize, #[case] width: usize, #[case] channels: usize) {
        let shape = ImageShape::new(height, width, channels);
        let values: Vec<f32> = (0..shape.len()).map(|i| (i * i % 13) as f32).collect();
        let mut window = Window::new(shape);
        window.mean(&vec![7.0; shape.len()]); // leaves nothing behind
        let means = window.mean(&values);
        for (i, mean) in means.iter().enumerate() {
            let y = i / channels / width;
            let x = i / channels % width;
            let c = i % channels;
            let near = |a: usize, b: usize| a.abs_diff(b) <= REACH;
            let all = (0..height).flat_map(|v| (0..width).map(move |u| (v, u)));
            let sum: f32 = all
                .filter(|(v, u)| near(*v, y) && near(*u, x))
                .map(|(v, u)| values[(v * width + u) * channels + c])
                .sum();
            assert!((mean - sum / 49.0).abs() < 1e-5, "{i}: {mean}, expected {}", sum / 49.0);
        }
    }
}
