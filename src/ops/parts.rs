//! Batches in parts, so that no operation has more values than a device counts.

use candle_core::{DType, Device, Tensor};

use super::MOST_VALUES;
use crate::error::Result;

/// The results of `f` on consecutive parts of a batch, joined along the first dimension, in f32.
///
/// `f` is given the first image of a part and the number of its images, which have at most [`MOST_VALUES`] values
/// together. An empty batch is one part.
pub(super) fn joined(
    images: usize,
    values_an_image: usize,
    f: impl Fn(usize, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let parts = parts(images, values_an_image).map(|(first, images)| Ok(f(first, images)?.to_dtype(DType::F32)?));
    Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
}

/// The sum of the results of `f`, as [`joined`] calls it, in f32.
pub(super) fn summed(
    images: usize,
    values_an_image: usize,
    f: impl Fn(usize, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    for (i, (first, images)) in parts(images, values_an_image).enumerate() {
        let part = f(first, images)?.to_dtype(DType::F32)?;
        sum = if i == 0 { part } else { (sum + part)? };
    }
    Ok(sum)
}

/// The first image and the number of images of each part.
fn parts(images: usize, values_an_image: usize) -> impl Iterator<Item = (usize, usize)> {
    let together = (MOST_VALUES / values_an_image.max(1)).max(1);
    (0..images.max(1)).step_by(together).map(move |first| (first, together.min(images - first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2^28 values an image: four images a part.
    #[test]
    fn batches_are_split_below_the_most_values() {
        let part = |first: usize, images: usize| Ok(Tensor::new(&[[first as u32, images as u32]], &Device::Cpu)?);
        let parts = joined(10, 1 << 28, part).unwrap();
        assert_eq!(parts.to_vec2::<f32>().unwrap(), [[0.0, 4.0], [4.0, 4.0], [8.0, 2.0]]);
        assert_eq!(summed(10, 1 << 28, part).unwrap().to_vec2::<f32>().unwrap(), [[12.0, 10.0]]);
        assert_eq!(joined(0, 0, part).unwrap().to_vec2::<f32>().unwrap(), [[0.0, 0.0]]);
    }
}
