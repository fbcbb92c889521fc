//! Sharpness of an image: the variance of its Laplacian, which is low for a blurred image.
//!
//! ```text
//!                          ⎡0  1 0⎤
//! sharpness(x) = Var(g ∗ L), L = ⎢1 −4 1⎥, g = 0.2989·R + 0.5870·G + 0.1140·B
//!                          ⎣0  1 0⎦
//! ```
//!
//! Where: the convolution has no border (H − 2 by W − 2 values), the variance is that of all of them (divided by their
//! number), and g is the image itself if it has one channel, and the mean of its channels if it has neither one nor
//! three.

use super::{Image, Pixels};
use crate::error::{Error, Result};

/// ITU-R BT.601 luma of red, green and blue.
const LUMA: [f64; 3] = [0.2989, 0.5870, 0.1140];

/// The variance of the Laplacian of the grey image, pixels in [0, 1].
///
/// # Errors
/// [`Error::Data`] for an image that is lower or narrower than three pixels.
///
/// # Example
/// ```
/// use wae_core::image::{Image, ImageShape, Pixels, sharpness};
///
/// // A white pixel beside a black one, seen from the two pixels within: −4 and 1.
/// let image = Image::try_new(ImageShape::new(3, 4, 1), Pixels::U8(vec![0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0]))?;
/// assert_eq!(sharpness(&image)?, 6.25);
/// # Ok::<(), wae_core::Error>(())
/// ```
///
/// # Source
/// The authors' `wae.py`, `compute_blurriness`; `golden/reference.py`, `sharpness`. The authors' CelebA has pixels in
/// [−1, 1], where the value is four times this one.
pub fn sharpness(image: &Image) -> Result<f64> {
    let shape = image.shape();
    let height = shape.height();
    let width = shape.width();
    if height < 3 || width < 3 {
        return Err(Error::Data(format!("an image of shape {shape} has no sharpness, expected at least 3 x 3 pixels")));
    }
    let grey = grey(image);
    let at = |y: usize, x: usize| grey[y * width + x];
    let laplacian: Vec<f64> = (1..height - 1)
        .flat_map(|y| (1..width - 1).map(move |x| (y, x)))
        .map(|(y, x)| at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1) - 4.0 * at(y, x))
        .collect();
    let count = laplacian.len() as f64;
    let mean = laplacian.iter().sum::<f64>() / count;
    Ok(laplacian.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count)
}

/// (H, W, C) to (H, W).
fn grey(image: &Image) -> Vec<f64> {
    let channels = image.shape().channels();
    let values: Vec<f64> = match image.pixels() {
        Pixels::U8(values) => values.iter().map(|v| f64::from(*v) / 255.0).collect(),
        Pixels::F32(values) => values.iter().map(|v| f64::from(*v)).collect(),
    };
    let weights = if channels == 3 { LUMA.to_vec() } else { vec![1.0 / channels as f64; channels] };
    values.chunks_exact(channels).map(|pixel| pixel.iter().zip(&weights).map(|(v, w)| v * w).sum()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use safetensors::SafeTensors;

    use super::*;
    use crate::image::ImageShape;

    /// The reference computes in f32.
    #[rstest]
    #[case("golden")]
    #[case("digit")]
    fn golden_values(#[case] name: &str) {
        let bytes = crate::train::tests::golden::stored(&format!("{name}.values.safetensors"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |name: &str| -> (Vec<usize>, Vec<f64>) {
            let view = file.tensor(name).unwrap();
            let values = view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            (view.shape().to_vec(), values)
        };
        let (shape, images) = tensor("images");
        let (_, expected) = tensor("sharpness");
        let [n, c, h, w] = shape[..] else { panic!("{shape:?} is not an image batch") };
        assert_eq!(expected.len(), n);
        for (image, expected) in images.chunks_exact(c * h * w).zip(expected) {
            let pixels = (0..h * w * c).map(|i| image[i % c * h * w + i / c] as f32).collect(); // (H, W, C)
            let image = Image::try_new(ImageShape::new(h, w, c), Pixels::F32(pixels)).unwrap();
            let got = sharpness(&image).unwrap();
            assert!((got / expected - 1.0).abs() < 1e-5, "{got}, expected {expected}");
        }
    }

    /// One value has no variance; a plane has no Laplacian.
    #[rstest]
    #[case(3, 3, vec![9, 0, 3, 7, 200, 1, 5, 0, 2])]
    #[case(3, 4, vec![10, 20, 30, 40, 15, 25, 35, 45, 20, 30, 40, 50])]
    fn nothing_to_see(#[case] height: usize, #[case] width: usize, #[case] pixels: Vec<u8>) {
        let image = Image::try_new(ImageShape::new(height, width, 1), Pixels::U8(pixels)).unwrap();
        assert!(sharpness(&image).unwrap() < 1e-30);
    }

    #[rstest]
    #[case(2, 9)]
    #[case(9, 2)]
    fn too_small(#[case] height: usize, #[case] width: usize) {
        let image = Image::try_new(ImageShape::new(height, width, 1), Pixels::U8(vec![0; height * width])).unwrap();
        let error = sharpness(&image).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("an image of shape [{height}, {width}, 1] has no sharpness, expected at least 3 x 3 pixels")
        );
    }
}
