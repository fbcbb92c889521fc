//! Which pixels a SAME convolution joins.

/// The two grids that a SAME convolution joins, and its taps.
///
/// # Source
/// TensorFlow's SAME padding, which the authors' network is built on: total = max((small − 1)·stride + k − large, 0),
/// the smaller half first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Height and width of the large grid.
    pub(crate) large: (usize, usize),
    /// Height and width of the small grid, ⌈large / stride⌉.
    pub(crate) small: (usize, usize),
    /// Channels on the large grid.
    pub(crate) large_channels: usize,
    /// Channels on the small grid.
    pub(crate) small_channels: usize,
    /// Side of the kernel.
    pub(crate) kernel: usize,
    /// Large pixels a small pixel.
    pub(crate) stride: usize,
    /// Padding before the first row and the first column of the large grid.
    pub(crate) padding: (usize, usize),
}

impl Geometry {
    /// The SAME convolution of a `large` grid, with `channels` on the large and the small one.
    ///
    /// # Panics
    /// If the kernel or the stride is 0, or a grid or the weights have more values than can be counted.
    pub fn same(large: (usize, usize), channels: (usize, usize), kernel: usize, stride: usize) -> Self {
        assert!(kernel > 0 && stride > 0, "kernel {kernel} and stride {stride} of a convolution");
        let countable =
            |sides: &[usize]| sides.iter().try_fold(1_usize, |product, side| product.checked_mul(*side)).is_some();
        assert!(
            countable(&[large.0, large.1, channels.0.max(channels.1)])
                && countable(&[kernel, kernel, channels.0, channels.1]),
            "values of a convolution"
        );
        let small = (large.0.div_ceil(stride), large.1.div_ceil(stride));
        let before = |large: usize, small: usize| ((small.max(1) - 1) * stride + kernel).saturating_sub(large) / 2;
        Self {
            large,
            small,
            large_channels: channels.0,
            small_channels: channels.1,
            kernel,
            stride,
            padding: (before(large.0, small.0), before(large.1, small.1)),
        }
    }

    /// The convolution of a `large` grid with as many rows and columns of padding before it as behind it, as PyTorch
    /// has it: a small side is ⌊(large + 2·padding − k)/stride⌋ + 1, and 0 where no window fits.
    ///
    /// # Panics
    /// As [`Self::same`].
    pub(crate) fn padded(
        large: (usize, usize),
        channels: (usize, usize),
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        let same = Self::same(large, channels, kernel, stride);
        let small = |large: usize| (large + 2 * padding).checked_sub(kernel).map_or(0, |left| left / stride + 1);
        Self { small: (small(large.0), small(large.1)), padding: (padding, padding), ..same }
    }

    /// A linear layer from `inputs` to `outputs` values.
    pub fn linear(inputs: usize, outputs: usize) -> Self {
        Self::same((1, 1), (inputs, outputs), 1, 1)
    }

    /// Values of an image on the large grid.
    pub fn large_len(&self) -> usize {
        self.large.0 * self.large.1 * self.large_channels
    }

    /// Values of an image on the small grid.
    pub fn small_len(&self) -> usize {
        self.small.0 * self.small.1 * self.small_channels
    }

    /// The number of taps, k².
    pub fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Products an image, those with padding included.
    pub fn products(&self) -> usize {
        self.weights_len() * self.small.0 * self.small.1
    }

    /// The weights' shape, (k, k, C_large, C_small).
    pub fn weights_shape(&self) -> [usize; 4] {
        [self.kernel, self.kernel, self.large_channels, self.small_channels]
    }

    /// Values in the weights.
    pub fn weights_len(&self) -> usize {
        self.taps() * self.large_channels * self.small_channels
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// ResNet's first layer and its pooling on 224 and 225 pixels, a layer of patches, and a window that does not fit.
    #[rstest]
    #[case(224, 7, 2, 3, 112)]
    #[case(225, 7, 2, 3, 113)]
    #[case(112, 3, 2, 1, 56)]
    #[case(60, 14, 14, 0, 4)]
    #[case(3, 14, 14, 0, 0)]
    fn padding_on_both_sides(
        #[case] large: usize,
        #[case] k: usize,
        #[case] stride: usize,
        #[case] padding: usize,
        #[case] small: usize,
    ) {
        let geometry = Geometry::padded((large, large), (1, 1), k, stride, padding);
        assert_eq!((geometry.small, geometry.padding), ((small, small), (padding, padding)));
    }

    /// The paper's MNIST network: 28 → 14 → 7 → 4 → 2, where the step from 7 to 4 pads one row before and two after.
    #[rstest]
    #[case(28, 4, 2, 14, 1)]
    #[case(7, 4, 2, 4, 1)]
    #[case(64, 5, 2, 32, 1)]
    #[case(9, 5, 2, 5, 2)]
    #[case(7, 4, 1, 7, 1)]
    #[case(5, 1, 2, 3, 0)]
    fn same_padding(
        #[case] large: usize,
        #[case] k: usize,
        #[case] stride: usize,
        #[case] small: usize,
        #[case] top: usize,
    ) {
        let geometry = Geometry::same((large, large), (1, 1), k, stride);
        assert_eq!((geometry.small.0, geometry.padding.0), (small, top));
    }
}
