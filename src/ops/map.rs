//! A function of each value as one operation of candle's graphs on the CPU.
//!
//! A formula of many terms costs candle a pass over memory for each of its operations, several times that in the
//! backward pass.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

/// f of each value of an f64 tensor on the CPU, differentiable where `derivative` is f'.
///
/// # Shapes
/// Any contiguous one → the same.
pub(crate) fn map(
    x: &Tensor,
    f: impl Fn(f64) -> f64 + Send + Sync + 'static,
    derivative: impl Fn(f64) -> f64 + Send + Sync + 'static,
) -> candle_core::Result<Tensor> {
    x.apply_op1(Differentiable { f: Values(f), derivative: Values(derivative) })
}

/// A function of each value, without a derivative.
struct Values<F>(F);

impl<F: Fn(f64) -> f64> CustomOp1 for Values<F> {
    fn name(&self) -> &'static str {
        "map"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        match (x, layout.contiguous_offsets()) {
            (CpuStorage::F64(values), Some((start, end))) => {
                let mapped = values[start..end].iter().map(|x| self.0(*x)).collect();
                Ok((CpuStorage::F64(mapped), layout.shape().clone()))
            }
            _ => Err(candle_core::Error::Msg("expected a contiguous f64 tensor".to_owned())),
        }
    }
}

/// A function with its derivative.
struct Differentiable<F, D> {
    f: Values<F>,
    derivative: Values<D>,
}

impl<F: Fn(f64) -> f64, D: Fn(f64) -> f64> CustomOp1 for Differentiable<F, D> {
    fn name(&self) -> &'static str {
        "map"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.f.cpu_fwd(x, layout)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, by_y: &Tensor) -> candle_core::Result<Option<Tensor>> {
        x.apply_op1_no_bwd(&self.derivative)?.mul(by_y).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn a_cube_and_its_derivative() {
        let x = Var::new(&[[1.0_f64, -2.0], [0.5, 3.0]], &Device::Cpu).unwrap();
        let y = map(&x, |x| x.powi(3), |x| 3.0 * x * x).unwrap();
        assert_eq!(y.to_vec2::<f64>().unwrap(), [[1.0, -8.0], [0.125, 27.0]]);
        let gradients = (y * 2.0).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f64>().unwrap(), [[6.0, 24.0], [1.5, 54.0]]);
    }

    #[test]
    fn another_type_is_an_error() {
        let x = Tensor::new(&[1.0_f32], &Device::Cpu).unwrap();
        let error = map(&x, |x| x, |_| 1.0).unwrap_err();
        assert!(error.to_string().contains("expected a contiguous f64 tensor"), "{error}");
    }
}
