//! Accelerators that are wrong on purpose, on the CPU: each is left out with a line that says why, and results stay
//! right.

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use rstest::rstest;

use super::*;
use crate::kernels::{AdamStep, Geometry};
use crate::ops::composed::Composed;
use crate::ops::{AdamMoments, NormGradients, NormStatistics, Trained, to_vec};

/// A tensor that an operation gives or changes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum OperationOutput {
    Down,
    Up,
    WeightGradient,
    Normed,
    Mean,
    Variance,
    InverseDeviation,
    InputGradient,
    GammaGradient,
    BetaGradient,
    Parameter,
    MeanMoment,
    SquareMoment,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Sign,
    OffByOne,
    NotANumber,
    Shape,
    Refusal,
}

impl Fault {
    fn spoil(self, tensor: &Tensor) -> Result<Tensor> {
        let mut values = to_vec(tensor)?;
        match self {
            Self::Sign => values.iter_mut().for_each(|v| *v = -*v),
            Self::OffByOne => values.rotate_left(1),
            Self::NotANumber => values.iter_mut().rev().take(1).for_each(|v| *v = f32::NAN),
            Self::Shape => return Ok(tensor.unsqueeze(0)?),
            Self::Refusal => return Err(Error::Device("the kernel is missing".to_owned())),
        }
        Ok(Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?)
    }

    /// Words of the line that names it.
    fn words(self) -> &'static str {
        match self {
            Self::Sign | Self::OffByOne => "is off by",
            Self::NotANumber => "is off by NaN",
            Self::Shape => "has shape",
            Self::Refusal => "the kernel is missing",
        }
    }
}

/// The composed operations with a fault in one output, in one precision or in all.
#[derive(Debug, Default)]
struct Faulty {
    fault: Option<(OperationOutput, Fault)>,
    precision: Option<Precision>,
    /// Outputs so far.
    outputs: AtomicUsize,
}

impl Faulty {
    fn new(output: OperationOutput, fault: Fault) -> Self {
        Self { fault: Some((output, fault)), ..Self::default() }
    }

    fn pass(&self, output: OperationOutput, precision: Precision, tensor: &Tensor) -> Result<Tensor> {
        self.outputs.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Some((at, fault)) if at == output && self.precision.is_none_or(|p| p == precision) => fault.spoil(tensor),
            _ => Ok(tensor.clone()),
        }
    }

    fn outputs(&self) -> usize {
        self.outputs.load(Ordering::Relaxed)
    }
}

impl Convolution for Faulty {
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        self.pass(OperationOutput::Down, precision, &Composed.down(g, large, weights, precision)?)
    }

    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        self.pass(OperationOutput::Up, precision, &Composed.up(g, small, weights, precision)?)
    }

    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, precision: Precision) -> Result<Tensor> {
        self.pass(OperationOutput::WeightGradient, precision, &Composed.weight_gradient(g, large, small, precision)?)
    }
}

impl Norm for Faulty {
    fn norm_relu(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<(Tensor, NormStatistics)> {
        let (y, statistics) = Composed.norm_relu(x, gamma, beta)?;
        let pass = |output, tensor: &Tensor| self.pass(output, Precision::F32, tensor);
        let statistics = NormStatistics {
            mean: pass(OperationOutput::Mean, &statistics.mean)?,
            variance: pass(OperationOutput::Variance, &statistics.variance)?,
            inverse_deviation: pass(OperationOutput::InverseDeviation, &statistics.inverse_deviation)?,
            count: statistics.count,
        };
        Ok((pass(OperationOutput::Normed, &y)?, statistics))
    }

    fn norm_relu_gradient(
        &self,
        x: &Tensor,
        y: &Tensor,
        gradient: &Tensor,
        gamma: &Tensor,
        statistics: &NormStatistics,
    ) -> Result<NormGradients> {
        let gradients = Composed.norm_relu_gradient(x, y, gradient, gamma, statistics)?;
        let pass = |output, tensor: &Tensor| self.pass(output, Precision::F32, tensor);
        Ok(NormGradients {
            x: pass(OperationOutput::InputGradient, &gradients.x)?,
            gamma: pass(OperationOutput::GammaGradient, &gradients.gamma)?,
            beta: pass(OperationOutput::BetaGradient, &gradients.beta)?,
        })
    }
}

impl Adam for Faulty {
    fn adam(&self, step: AdamStep, trained: &mut [Trained<'_>]) -> Result<()> {
        Composed.adam(step, trained)?;
        for Trained { parameter, moments, .. } in trained {
            **parameter = self.pass(OperationOutput::Parameter, Precision::F32, parameter)?;
            moments.mean = self.pass(OperationOutput::MeanMoment, Precision::F32, &moments.mean)?;
            moments.square = self.pass(OperationOutput::SquareMoment, Precision::F32, &moments.square)?;
        }
        Ok(())
    }
}

/// The three kinds of accelerators of one implementation.
fn kinds(faulty: &Arc<Faulty>) -> Vec<Candidate> {
    vec![
        ("convolutions", Ok(Accelerator::Convolution(Arc::clone(faulty) as _))),
        ("norms", Ok(Accelerator::Norm(Arc::clone(faulty) as _))),
        ("Adam", Ok(Accelerator::Adam(Arc::clone(faulty) as _))),
    ]
}

fn choose(candidates: &[Candidate], precision: Precision) -> (Operations, Vec<String>) {
    with_accelerators(Operations::composed(), candidates, &Device::Cpu, precision)
}

/// Values of every operation on some inputs.
fn values(operations: &Operations, precision: Precision) -> Vec<Vec<f32>> {
    let g = Geometry::same((6, 5), (3, 4), 3, 2);
    let random = |shape: &[usize]| {
        let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let large = random(&[2, 6, 5, 3]);
    let small = random(&[2, 3, 3, 4]);
    let weights = random(&g.weights_shape());
    let channel = random(&[4]);
    let down = operations.convolution.down(&g, &large, &weights, precision).unwrap();
    let up = operations.convolution.up(&g, &small, &weights, precision).unwrap();
    let dw = operations.convolution.weight_gradient(&g, &large, &small, precision).unwrap();
    let (y, statistics) = operations.norm.norm_relu(&small, &channel, &channel).unwrap();
    let gradients = operations.norm.norm_relu_gradient(&small, &y, &small, &channel, &statistics).unwrap();
    let mut parameter = weights.clone();
    let mut moments = AdamMoments::zeros(&parameter).unwrap();
    let trained = Trained { parameter: &mut parameter, gradient: dw.clone(), moments: &mut moments };
    operations.adam.adam(AdamStep::new(1, 1e-2, 0.5, 0.999, 1e-8), &mut [trained]).unwrap();
    let all = [&down, &up, &dw, &y, &statistics.mean, &gradients.x, &gradients.gamma, &gradients.beta, &parameter];
    all.into_iter().chain([&moments.mean, &moments.square]).map(|tensor| to_vec(tensor).unwrap()).collect()
}

/// One line names the accelerator and its wrong output. It computes nothing then, and the two others compute.
#[rstest]
fn a_wrong_accelerator_is_left_out(
    #[values(
        (OperationOutput::Down, "convolutions: left out", "a convolution"),
        (OperationOutput::Up, "convolutions: left out", "a transposed convolution"),
        (OperationOutput::WeightGradient, "convolutions: left out", "a gradient of weights"),
        (OperationOutput::Normed, "norms: left out", "a norm on"),
        (OperationOutput::Mean, "norms: left out", "a norm's mean"),
        (OperationOutput::Variance, "norms: left out", "a norm's variance"),
        (OperationOutput::InverseDeviation, "norms: left out", "a norm's inverse deviation"),
        (OperationOutput::InputGradient, "norms: left out", "a norm's gradient"),
        (OperationOutput::GammaGradient, "norms: left out", "the gradient of a norm's factor"),
        (OperationOutput::BetaGradient, "norms: left out", "the gradient of a norm's term"),
        (OperationOutput::Parameter, "Adam: left out", "a step of Adam"),
        (OperationOutput::MeanMoment, "Adam: left out", "Adam's mean"),
        (OperationOutput::SquareMoment, "Adam: left out", "Adam's mean square"),
    )]
    wrong: (OperationOutput, &str, &str),
    #[values(Fault::Sign, Fault::OffByOne, Fault::NotANumber, Fault::Shape, Fault::Refusal)] fault: Fault,
) {
    let (output, name, operation) = wrong;
    let faulty = Arc::new(Faulty::new(output, fault));
    let (chosen, left_out) = choose(&kinds(&faulty), Precision::F32);
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert!(left_out[0].starts_with(name) && left_out[0].contains(fault.words()), "{left_out:?}");
    // A refusal has its own words, and the moments of Adam take the shape of a wrong parameter.
    let named = left_out[0].contains(operation);
    assert!(named || matches!(fault, Fault::Refusal | Fault::Shape), "{left_out:?}");
    let composed = values(&Operations::composed(), Precision::F32);
    let before = faulty.outputs();
    assert_eq!(values(&chosen, Precision::F32), composed);
    // Of 13 outputs, 7 are those of norms with their statistics, and 3 those of each other kind.
    let of_kind = if name.starts_with("norms") { 7 } else { 3 };
    assert_eq!(faulty.outputs() - before, 13 - of_kind);
}

/// A fault in one precision counts in every precision that computes in it: all are calibrated in f32, and in bf16 some
/// layers take TF32.
#[rstest]
#[case(Precision::F32, [true, true, true])]
#[case(Precision::Tf32, [false, true, true])]
#[case(Precision::Bf16, [false, false, true])]
fn a_fault_in_one_precision_is_found(#[case] wrong: Precision, #[case] found: [bool; 3]) {
    for (precision, found) in [Precision::F32, Precision::Tf32, Precision::Bf16].into_iter().zip(found) {
        for output in [OperationOutput::Down, OperationOutput::Up, OperationOutput::WeightGradient] {
            let faulty = Faulty { precision: Some(wrong), ..Faulty::new(output, Fault::OffByOne) };
            let (_, left_out) = choose(&kinds(&Arc::new(faulty)), precision);
            assert_eq!(left_out.len(), usize::from(found), "{output:?} in {precision:?}: {left_out:?}");
            let named = format!("in {} is off by", wrong.name());
            assert!(left_out.iter().all(|line| line.contains(&named)), "{left_out:?}");
        }
    }
}

#[test]
fn a_right_accelerator_is_taken() {
    let right = Arc::new(Faulty::default());
    let (chosen, left_out) = choose(&kinds(&right), Precision::Bf16);
    assert_eq!(left_out, [""; 0]);
    let before = right.outputs();
    assert_eq!(values(&chosen, Precision::Bf16), values(&Operations::composed(), Precision::Bf16));
    assert_eq!(right.outputs() - before, 13);
}

#[test]
fn an_accelerator_that_cannot_be_loaded_is_left_out() {
    let candidates = [("the norm kernels", Err(Error::Device("NVRTC: no such file".to_owned())))];
    let (chosen, left_out) = choose(&candidates, Precision::F32);
    assert_eq!(left_out, ["the norm kernels: left out for slower operations, as NVRTC: no such file"]);
    assert_eq!(values(&chosen, Precision::F32), values(&Operations::composed(), Precision::F32));
}

/// An accelerator that has no convolutions of 2 taps, which are not among those that are compared.
#[derive(Debug)]
struct Partial(Faulty);

impl Partial {
    fn check(&self, g: &Geometry) -> Result<&Faulty> {
        let refused = || Error::Device("there is no algorithm".to_owned());
        self.0.outputs.fetch_add(1, Ordering::Relaxed);
        (g.kernel != 2).then_some(&self.0).ok_or_else(refused)
    }
}

impl Convolution for Partial {
    fn down(&self, g: &Geometry, large: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        self.check(g)?.down(g, large, weights, precision)
    }

    fn up(&self, g: &Geometry, small: &Tensor, weights: &Tensor, precision: Precision) -> Result<Tensor> {
        self.check(g)?.up(g, small, weights, precision)
    }

    fn weight_gradient(&self, g: &Geometry, large: &Tensor, small: &Tensor, precision: Precision) -> Result<Tensor> {
        self.check(g)?.weight_gradient(g, large, small, precision)
    }
}

/// It is asked once.
#[test]
fn a_convolution_that_an_accelerator_refuses_is_composed() {
    let partial = Arc::new(Partial(Faulty::default()));
    let candidates = [("convolutions", Ok(Accelerator::Convolution(Arc::clone(&partial) as _)))];
    let (chosen, left_out) = choose(&candidates, Precision::F32);
    assert_eq!(left_out, [""; 0]);
    let g = Geometry::same((4, 4), (2, 3), 2, 2);
    let large = Tensor::ones((1, 4, 4, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let weights = Tensor::ones(&g.weights_shape(), candle_core::DType::F32, &Device::Cpu).unwrap();
    let before = partial.0.outputs();
    for _ in 0..2 {
        let small = chosen.convolution.down(&g, &large, &weights, Precision::F32).unwrap();
        assert_eq!(to_vec(&small).unwrap(), [8.0; 12]); // 4 taps of 2 channels
    }
    assert_eq!(partial.0.outputs() - before, 1);
}

/// As a host may do it: many tasks of one pool, each of which opens the device.
#[test]
fn a_device_can_be_opened_within_a_pool() {
    use rayon::prelude::*;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let open = |_| open(crate::device::Device::Cpu, Precision::Tf32).map(drop);
    pool.install(|| (0..32).into_par_iter().map(open).collect::<Result<Vec<_>>>()).unwrap();
}
