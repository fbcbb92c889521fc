//! The kernels' layers beside the composed ones, and maps by hand.

use candle_core::Device;
use rstest::rstest;

use super::*;
use crate::device::Precision;
use crate::kernels::Nonlinearity;
use crate::kernels::tests::{relative_error, values};
use crate::ops::to_vec;

fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
}

/// The target under test: the CPU's kernels unless `WAE_KERNELS` says otherwise, and the composed operations.
fn targets() -> [Target; 2] {
    [Target::cpu(), Target::composed(Precision::F32)]
}

/// max|a − b| / max|b| of what a layer gives on both targets.
fn difference(layer: impl Fn(&Target) -> Result<Tensor>) -> f64 {
    let [kernels, composed] = targets().map(|target| layer(&target).unwrap());
    assert_eq!(kernels.dims(), composed.dims());
    let expected: Vec<f64> = to_vec(&composed).unwrap().into_iter().map(f64::from).collect();
    relative_error(&to_vec(&kernels).unwrap(), &expected)
}

const ALL: [Nonlinearity; 6] = [
    Nonlinearity::Identity,
    Nonlinearity::Relu,
    Nonlinearity::Relu6,
    Nonlinearity::Silu,
    Nonlinearity::Gelu,
    Nonlinearity::Sigmoid,
];

#[rstest]
#[case::stem(Window::symmetric(7, 2), 3, 20)]
#[case::square(Window::symmetric(3, 1), 20, 33)]
#[case::strided(Window::symmetric(3, 2), 8, 64)]
#[case::shortcut(Window::symmetric(1, 2), 17, 8)]
#[case::patches(Window { kernel: 4, stride: 4, padding: Padding::None }, 3, 24)]
#[case::tensorflow(Window { kernel: 3, stride: 2, padding: Padding::Same }, 3, 8)]
#[case::point(Window::POINT, 24, 7)]
fn convolutions_agree(#[case] window: Window, #[case] inputs: usize, #[case] outputs: usize) {
    let x = random(&[7, 13, 10, inputs], 1);
    let (height, width) = window.output((13, 10));
    let residual = random(&[7, height, width, outputs], 2);
    for function in ALL {
        for residual in [None, Some(&residual)] {
            let error = difference(|target| {
                let weights = values(window.kernel * window.kernel * inputs * outputs, 3);
                let layer = FrozenConvolution::try_new(target, window, weights, values(outputs, 4), function)?;
                assert_eq!((layer.outputs(), layer.window()), (outputs, window));
                assert!(layer.memory() >= 4 * window.kernel * window.kernel * inputs * outputs);
                layer.apply(target, &x, residual)
            });
            assert!(error < 2e-5, "{function:?}: {error}");
        }
    }
}

#[rstest]
#[case(Window::symmetric(3, 1), (9, 8))]
#[case(Window::symmetric(5, 2), (9, 8))]
#[case(Window { kernel: 3, stride: 2, padding: Padding::Same }, (9, 8))]
#[case(Window { kernel: 5, stride: 2, padding: Padding::Same }, (1, 2))]
fn depthwise_convolutions_agree(#[case] window: Window, #[case] (height, width): (usize, usize)) {
    let x = random(&[2, height, width, 35], 1);
    for function in ALL {
        let error = difference(|target| {
            let weights = values(window.kernel * window.kernel * 35, 2);
            FrozenDepthwise::try_new(target, window, weights, values(35, 3), function)?.apply(&x)
        });
        assert!(error < 1e-5, "{function:?}: {error}");
    }
}

#[test]
fn the_other_layers_agree() {
    let maps = random(&[3, 9, 6, 35], 1);
    let gate = random(&[3, 35], 2);
    assert_eq!(difference(|target| max_pool(target, &maps)), 0.0);
    assert!(difference(|target| mean_of_places(target, &maps)) < 1e-5);
    assert_eq!(difference(|target| scale_channels(target, &maps, &gate)), 0.0);
    let qkv = random(&[2, 19, 3 * 2 * 8], 3);
    assert!(difference(|target| attention(target, &qkv, 2)) < 1e-5);
    let norm = |target: &Target| FrozenLayerNorm::try_new(target, values(48, 4), values(48, 5), 1e-6);
    let tokens = random(&[2, 19, 48], 6);
    assert!(difference(|target| norm(target)?.apply(target, &tokens)) < 1e-5);
}

#[test]
fn maps_that_do_not_fit_are_an_error() {
    for target in targets() {
        let patches = Window { kernel: 4, stride: 4, padding: Padding::None };
        let layer = |window: Window, inputs: usize| {
            let weights = vec![0.0; window.kernel * window.kernel * inputs * 2];
            FrozenConvolution::try_new(&target, window, weights, vec![0.0; 2], Nonlinearity::Relu).unwrap()
        };
        let error = layer(patches, 3).apply(&target, &random(&[1, 3, 8, 3], 1), None).unwrap_err().to_string();
        assert_eq!(error, "maps of 3 × 8 × 3 do not fit a window of 4 × 4 × 3");
        let error = layer(Window::symmetric(3, 1), 2).apply(&target, &random(&[1, 4, 4, 3], 1), None);
        assert!(error.is_err());
        let error = layer(Window::POINT, 2).apply(&target, &random(&[5, 3], 1), None).unwrap_err().to_string();
        assert_eq!(error, "a layer of 2 channels got [5, 3]");
    }
}

/// Half-pixel centres: doubling 0, 4 looks at −0.25, 0.25, 0.75 and 1.25, of which the first and last are the border.
#[test]
fn bilinear_by_hand() {
    let x = Tensor::new(&[0.0_f32, 4.0], &Device::Cpu).unwrap();
    let wide = resize_bilinear(&x.reshape((1, 1, 2, 1)).unwrap(), (1, 4)).unwrap();
    assert_eq!(to_vec(&wide).unwrap(), [0.0, 1.0, 3.0, 4.0]);
    let tall = resize_bilinear(&x.reshape((1, 2, 1, 1)).unwrap(), (4, 2)).unwrap();
    assert_eq!(to_vec(&tall).unwrap(), [0.0, 0.0, 1.0, 1.0, 3.0, 3.0, 4.0, 4.0]);
    let same = random(&[2, 3, 4, 5], 1);
    assert_eq!(to_vec(&resize_bilinear(&same, (3, 4)).unwrap()).unwrap(), to_vec(&same).unwrap());
}
