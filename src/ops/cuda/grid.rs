//! Padding of a convolution's large grid where cuDNN, which pads both sides alike, cannot add it.

use cudarc::driver::PushKernelArg;

use super::Array;
use crate::error::Result;
use crate::kernels::Geometry;

/// The large grid as cuDNN sees it.
pub(super) struct Grid {
    pub(super) height: usize,
    pub(super) width: usize,
    /// What cuDNN pads on each side: 0 where the grid is padded beforehand.
    pub(super) padding: (usize, usize),
}

impl Grid {
    pub(super) fn of(g: &Geometry) -> Self {
        let total = |large: usize, small: usize| ((small.max(1) - 1) * g.stride + g.kernel).saturating_sub(large);
        let (height, width) = (total(g.large.0, g.small.0), total(g.large.1, g.small.1));
        if (height, width) == (2 * g.padding.0, 2 * g.padding.1) {
            return Self { height: g.large.0, width: g.large.1, padding: g.padding };
        }
        Self { height: g.large.0 + height, width: g.large.1 + width, padding: (0, 0) }
    }

    fn is_padded(&self, g: &Geometry) -> bool {
        (self.height, self.width) != g.large
    }

    /// The large grid with its padding, where cuDNN does not add it.
    pub(super) fn padded(&self, g: &Geometry, x: &Array) -> Result<Array> {
        if !self.is_padded(g) {
            return Ok(x.clone());
        }
        let images = x.len() / g.large_len();
        let corner = (g.padding.0 as i32, g.padding.1 as i32);
        place(x, [images, self.height, self.width, g.large_channels], corner, g.large)
    }

    /// The large grid without its padding.
    pub(super) fn cropped(&self, g: &Geometry, x: Array) -> Result<Array> {
        if !self.is_padded(g) {
            return Ok(x);
        }
        let images = x.len() / (self.height * self.width * g.large_channels);
        let corner = (-(g.padding.0 as i32), -(g.padding.1 as i32));
        place(&x, [images, g.large.0, g.large.1, g.large_channels], corner, (self.height, self.width))
    }
}

/// Bytes that a thread copies where a pixel's channels are a multiple of them.
const WIDE: usize = 16;

/// A grid of `shape` in which one of `from` begins at `corner`: padded where it is smaller, cropped where it is larger.
fn place(x: &Array, shape: [usize; 4], corner: (i32, i32), from: (usize, usize)) -> Result<Array> {
    let (gpu, len) = (x.gpu(), shape.iter().product::<usize>());
    let y = x.data().uninit_like(gpu, len)?;
    let together = WIDE / y.value_bytes();
    let (kernel, together) =
        if shape[3].is_multiple_of(together) { ("place_wide".to_owned(), together) } else { (y.kernel("place"), 1) };
    let copies = len / together;
    let [n, height, width, channels, from_height, from_width] =
        [copies, shape[1], shape[2], shape[3] / together, from.0, from.1].map(|v| v as u32);
    let (top, left) = corner;
    gpu.launch(&kernel, copies, |arguments| {
        arguments.arg(&n);
        x.data().push(arguments);
        y.push(arguments);
        arguments.arg(&height).arg(&width).arg(&channels).arg(&top).arg(&left).arg(&from_height).arg(&from_width);
    })?;
    Array::of(gpu, y, &shape)
}
