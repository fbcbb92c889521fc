//! Batch norm with ReLU by kernels of our own.

use std::sync::Arc;

use candle_core::Tensor;

use super::memory::{counted, dense, unwritten};
use super::program::{Argument, Program};
use crate::error::Result;
use crate::kernels::EPSILON;
use crate::ops::{Norm, NormGradients, NormStatistics};

/// Threads that sum over rows: enough that their loads fill a large GPU's memory bus.
const THREADS: usize = 1 << 17;
/// The fewest rows of a part, of which there are several.
const PART: usize = 32;
/// The most parts that one thread joins without groups before it.
const FEW: usize = 128;
/// As `TOGETHER` in `kernels/common.cu`: rows that a thread loads at once.
const TOGETHER: usize = 8;

/// The kernels of `kernels/norm.cu`.
#[derive(Debug)]
pub(super) struct NormKernels(Arc<Program>);

/// The cut of a sum's rows, as in `kernels/common.cu`: parts of every `parts`th row, joined in groups. It follows from
/// the shape alone, and so does the order of the sum.
#[derive(Debug, Clone, Copy)]
struct Cut {
    parts: usize,
    /// They divide the parts. If there are as many as parts, nothing is joined before the last step.
    groups: usize,
}

impl Cut {
    fn new(rows: usize, channels: usize) -> Self {
        let parts = (THREADS / channels).min(rows / PART).max(1);
        if parts <= FEW {
            return Self { parts, groups: parts };
        }
        let groups = parts.isqrt();
        Self { parts: parts - parts % groups, groups }
    }
}

/// The rows and channels of a tensor (…, C), with the numbers of parts of a sum and of an operation value by value.
struct Size {
    rows: usize,
    channels: usize,
    cut: Cut,
    /// Parts where each value stands for itself: twice the threads of a sum, with as many rows each as are loaded at
    /// once.
    spread: usize,
}

impl Size {
    fn of(x: &Tensor) -> Result<Self> {
        counted(x.elem_count())?;
        let channels = x.dims().last().copied().unwrap_or(1);
        let rows = x.elem_count() / channels;
        let spread = (2 * THREADS / channels).min(rows / TOGETHER).max(1);
        Ok(Self { rows, channels, cut: Cut::new(rows, channels), spread })
    }
}

/// Counts, then tensors, as the kernels of norms take them.
fn arguments<'a>(counts: &[usize], tensors: &[&'a Tensor]) -> Vec<Argument<'a>> {
    // `Size` and `unwritten` have checked that they have 32 bits.
    let counts = counts.iter().map(|count| Argument::Count(*count as u32));
    counts.chain(tensors.iter().map(|tensor| Argument::Values(tensor))).collect()
}

impl NormKernels {
    pub(super) fn new(program: Arc<Program>) -> Self {
        Self(program)
    }

    fn unwritten(&self, shape: &[usize]) -> Result<Tensor> {
        unwritten::<f32>(self.0.device(), shape)
    }

    /// Mean and variance of each channel of x, (rows, channels).
    fn statistics(&self, x: &Tensor, size: &Size) -> Result<NormStatistics> {
        let Size { rows, channels, cut: Cut { parts, groups }, .. } = *size;
        let mut moments = unwritten::<f64>(self.0.device(), &[2, parts, channels])?;
        let counts = [rows, channels, parts, groups];
        // SAFETY: the arguments are those of the kernel, with as many values as its comment says.
        unsafe { self.0.launch("norm_parts", parts * channels, &arguments(&counts[..3], &[x, &moments]))? };
        if groups < parts {
            let grouped = unwritten::<f64>(self.0.device(), &[2, groups, channels])?;
            // SAFETY: as above.
            unsafe { self.0.launch("norm_groups", groups * channels, &arguments(&counts, &[&moments, &grouped]))? };
            moments = grouped;
        }
        let mean = self.unwritten(&[channels])?;
        let variance = self.unwritten(&[channels])?;
        let inverse_deviation = self.unwritten(&[channels])?;
        let mut last = arguments(&[rows, channels, groups], &[&moments, &mean, &variance, &inverse_deviation]);
        last.push(Argument::F64(EPSILON));
        // SAFETY: as above.
        unsafe { self.0.launch("norm_statistics", channels, &last)? };
        Ok(NormStatistics { mean, variance, inverse_deviation, count: rows })
    }

    /// The gradients of γ and β, from x, y, the gradient of y, means and inverse deviations.
    fn parameter_gradients(&self, inputs: &[&Tensor; 5], size: &Size) -> Result<(Tensor, Tensor)> {
        let Size { rows, channels, cut: Cut { parts, groups }, .. } = *size;
        let columns = 2 * channels;
        let mut sums = unwritten::<f64>(self.0.device(), &[parts, columns])?;
        let [x, y, gradient, mean, inverse] = *inputs;
        let summed = arguments(&[rows, channels, parts], &[x, y, gradient, mean, inverse, &sums]);
        // SAFETY: the arguments are those of the kernel, with as many values as its comment says.
        unsafe { self.0.launch("norm_sums", parts * channels, &summed)? };
        drop(summed);
        if groups < parts {
            let grouped = unwritten::<f64>(self.0.device(), &[groups, columns])?;
            let joined = arguments(&[parts, columns, groups], &[&sums, &grouped]);
            // SAFETY: as above.
            unsafe { self.0.launch("norm_sum_groups", groups * columns, &joined)? };
            sums = grouped;
        }
        let gamma = self.unwritten(&[channels])?;
        let beta = self.unwritten(&[channels])?;
        // SAFETY: as above.
        unsafe {
            self.0.launch("norm_gradients", columns, &arguments(&[groups, channels], &[&sums, &gamma, &beta]))?;
        }
        Ok((gamma, beta))
    }
}

impl Norm for NormKernels {
    fn norm_relu(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, NormStatistics)> {
        let size = Size::of(x)?;
        let Size { rows, channels, spread, .. } = size;
        let x = dense(x, x.dims())?;
        let gamma = dense(gamma, &[channels])?;
        let beta = dense(beta, &[channels])?;
        let statistics = self.statistics(&x, &size)?;
        let NormStatistics { mean, inverse_deviation, .. } = &statistics;
        let y = self.unwritten(x.dims())?;
        let applied = arguments(&[rows, channels, spread], &[&x, mean, inverse_deviation, &gamma, &beta, &y]);
        // SAFETY: the arguments are those of the kernel, with as many values as its comment says.
        unsafe { self.0.launch("norm_apply", spread * channels, &applied)? };
        drop(applied);
        Ok((y, statistics))
    }

    fn norm_relu_gradient(
        &self,
        x: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
        gamma: &Tensor,
        statistics: &NormStatistics,
    ) -> Result<NormGradients> {
        let size = Size::of(x)?;
        let Size { rows, channels, spread, .. } = size;
        let shape = x.dims();
        let [x, y, gradient] = [dense(x, shape)?, dense(y, shape)?, dense(gradient, shape)?];
        let gamma = dense(gamma, &[channels])?;
        let mean = dense(&statistics.mean, &[channels])?;
        let inverse = dense(&statistics.inverse_deviation, &[channels])?;
        let inputs = [&x, &y, &gradient, &mean, &inverse];
        let (dgamma, dbeta) = self.parameter_gradients(&inputs, &size)?;
        let dx = self.unwritten(shape)?;
        let tensors = [&x, &y, &gradient, &mean, &inverse, &gamma, &dgamma, &dbeta, &dx];
        // SAFETY: the arguments are those of the kernel, with as many values as its comment says.
        unsafe {
            self.0.launch("norm_input", spread * channels, &arguments(&[rows, channels, spread], &tensors))?;
        }
        Ok(NormGradients { x: dx, gamma: dgamma, beta: dbeta })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Every row is in one part of one group, parts are neither small nor more than there are threads for, and the last
    /// step is short.
    #[rstest]
    #[case(1, 3, 1, 1)]
    #[case(31, 3, 1, 1)]
    #[case(128 * 32, 3, 128, 128)]
    #[case(129 * 32, 3, 121, 11)]
    #[case(1000 * 64 * 64, 3, 43_681, 209)]
    #[case(1000 * 28 * 28, 128, 1_024, 32)]
    #[case(1000, 200_000, 1, 1)]
    fn rows_are_cut(#[case] rows: usize, #[case] channels: usize, #[case] parts: usize, #[case] groups: usize) {
        let cut = Cut::new(rows, channels);
        assert_eq!((cut.parts, cut.groups), (parts, groups));
    }
}
