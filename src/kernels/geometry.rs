//! Which pixels a SAME convolution joins.

/// The two grids that a SAME convolution joins, and its taps.
///
/// # Source
/// TensorFlow's SAME padding, which the authors' network is built on: total = max((small − 1)·stride + k − large, 0), the
/// smaller half first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the large grid.
    pub large: (usize, usize),
    /// Height and width of the small grid, ⌈large / stride⌉.
    pub small: (usize, usize),
    /// Channels on the large grid.
    pub large_channels: usize,
    /// Channels on the small grid.
    pub small_channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Large pixels a small pixel.
    pub stride: usize,
    /// Padding before the first row and the first column of the large grid.
    pub padding: (usize, usize),
}

impl Geometry {
    /// The SAME convolution of a `large` grid.
    pub fn same(large: (usize, usize), channels: (usize, usize), kernel: usize, stride: usize) -> Self {
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

    /// Values in the weights, (k, k, C_large, C_small).
    pub fn weights_len(&self) -> usize {
        self.taps() * self.large_channels * self.small_channels
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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
