//! A linear layer as an operation of candle's graphs, for the discriminator, which they train.

use candle_core::{CpuStorage, CustomOp3, Layout, Module, Shape, Tensor};
use candle_nn::Linear;

use super::cpu::{Kernels, slice};
use super::{Convolution, Pointwise};
use crate::architecture::Activation;
use crate::device::Precision;
use crate::error::Result;
use crate::kernels::{Epilogue, Geometry, UpWeights, is_composed};

/// x·wᵀ + b, or max(0, x·wᵀ + b): differentiable by x, w and b, and ReLU's derivative at 0 is 0.
///
/// On the CPU the layer is one operation of [`crate::kernels`] each way: candle's own products are half as fast there,
/// and give the gradient of a weight that is constant, too.
///
/// # Shapes
/// x (N, in), w (out, in), b (out) → (N, out).
pub(crate) fn linear(layer: &Linear, x: &Tensor, relu: bool) -> Result<Tensor> {
    match layer.bias() {
        Some(bias) if x.device().is_cpu() && !is_composed() => {
            Ok(x.contiguous()?.apply_op3(layer.weight(), bias, ByKernels { relu })?)
        }
        _ if relu => {
            let y = layer.forward(x)?;
            // Candle's own ReLU has the derivative 1 at 0.
            let is_positive = y.detach().sign()?.relu()?;
            Ok(y.mul(&is_positive)?)
        }
        _ => Ok(layer.forward(x)?),
    }
}

/// The layer by the CPU's kernels. Weights (out, in) are those of the transposed convolution of one pixel from `in`
/// channels to `out`.
struct ByKernels {
    relu: bool,
}

impl ByKernels {
    fn activation(&self) -> Activation {
        if self.relu { Activation::Relu } else { Activation::Identity }
    }

    /// The gradients of x, w and b. Constants have none.
    fn gradients(&self, [x, w]: [&Tensor; 2], y: &Tensor, by_y: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let (outputs, inputs) = w.dims2()?;
        let g = Geometry::linear(outputs, inputs);
        let (e, by_b) = Kernels.bias_activation_gradient(y, &by_y.contiguous()?, self.activation())?;
        let mut by_x = None;
        if x.track_op() {
            by_x = Some(Kernels.down(&g, &e, w, Precision::F32)?.reshape(x.shape())?);
        }
        let mut by_w = None;
        if w.track_op() {
            by_w = Some(Kernels.weight_gradient(&g, &e, x, Precision::F32)?.reshape(w.shape())?);
        }
        Ok([by_x, by_w, Some(by_b)])
    }
}

impl CustomOp3 for ByKernels {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = w_layout.shape().dims2()?;
        let (rows, width) = x_layout.shape().dims2()?;
        if width != inputs {
            return Err(candle_core::Error::Msg(format!("{width} inputs of a linear layer, expected {inputs}")));
        }
        let weights = UpWeights::new(Geometry::linear(outputs, inputs), slice(w, w_layout)?, None);
        let y = weights.apply(
            slice(x, x_layout)?,
            Epilogue { shift: Some(slice(b, b_layout)?), relu: self.relu, ..Epilogue::default() },
        );
        Ok((CpuStorage::F32(y), Shape::from((rows, outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        y: &Tensor,
        by_y: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [by_x, by_w, by_b] = self.gradients([x, w], y, by_y).map_err(candle_core::Error::wrap)?;
        Ok((by_x, by_w, by_b))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::ops::to_vec;

    /// The kernels' layer is candle's in value and in each gradient, with ReLU and without.
    #[test]
    fn the_kernels_layer_is_candles() {
        let values = |len: usize, salt: u64| crate::kernels::tests::values(len, salt);
        let var = |len, shape: &[usize], salt| {
            Var::from_tensor(&Tensor::from_vec(values(len, salt), shape, &Device::Cpu).unwrap()).unwrap()
        };
        let x = var(5 * 7, &[5, 7], 1);
        let w = var(9 * 7, &[9, 7], 2);
        let b = var(9, &[9], 3);
        let by_y = Tensor::from_vec(values(5 * 9, 4), (5, 9), &Device::Cpu).unwrap();
        for relu in [false, true] {
            let y = x.apply_op3(&w, &b, ByKernels { relu }).unwrap();
            let expected = x.matmul(&w.t().unwrap()).unwrap().broadcast_add(&b).unwrap();
            let expected = if relu { expected.relu().unwrap() } else { expected };
            let gradients = |y: &Tensor| y.mul(&by_y).unwrap().sum_all().unwrap().backward().unwrap();
            let got = gradients(&y);
            let right = gradients(&expected);
            let pairs = [&x, &w, &b].map(|var| (got.get(var).unwrap().clone(), right.get(var).unwrap().clone()));
            for (a, b) in pairs.iter().chain([&(y, expected)]) {
                assert_eq!(a.dims(), b.dims());
                let near = to_vec(a).unwrap().iter().zip(to_vec(b).unwrap()).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(near, "ReLU {relu}: {a} {b}");
            }
        }
    }

    /// Constants cost no gradient.
    #[test]
    fn a_constant_weight_has_no_gradient() {
        let ones = |shape: &[usize]| Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&ones(&[2, 3])).unwrap();
        let w = ones(&[4, 3]);
        let y = ones(&[2, 4]);
        let [by_x, by_w, _] = ByKernels { relu: false }.gradients([&x, &w], &y, &y).unwrap();
        assert_eq!(to_vec(&by_x.unwrap()).unwrap(), [4.0; 6]);
        assert!(by_w.is_none());
    }
}
