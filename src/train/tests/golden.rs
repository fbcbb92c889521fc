//! The golden values of `fixtures/golden`: every stage, every gradient, three steps of Adam.
//!
//! Errors are max|a − b| / max|b| over a tensor, as some gradients are exactly 0. PyTorch in f32 itself reaches 1.4e-6
//! on the gradients; 1e-4 leaves room for other orders of summation and none for another formula.

use rstest::rstest;
use safetensors::SafeTensors;

use super::*;
use crate::checkpoint::{ModelFile, Tensors};
use crate::config::Objective;
use crate::device::{Device, Precision};
use crate::model::Wae;
use crate::ops::{self, Tensor};
use crate::train::step::{Draws, Losses, number};

const TOLERANCE: f64 = 1e-4;

struct Golden {
    model: ModelFile,
    after: Vec<u8>,
    values: Vec<u8>,
    scalars: serde_json::Value,
}

/// A file of `fixtures/golden`, or of the folder that `WAE_GOLDEN` names where the tests run on another machine.
pub(crate) fn stored(file: &str) -> Vec<u8> {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/golden");
    let folder = std::env::var("WAE_GOLDEN").unwrap_or_else(|_| here.to_owned());
    std::fs::read(std::path::Path::new(&folder).join(file)).unwrap()
}

fn golden(name: &str) -> Golden {
    let read = |kind: &str| stored(&format!("{name}.{kind}"));
    Golden {
        model: ModelFile::from_bytes(&read("model.safetensors")).unwrap(),
        after: read("after.safetensors"),
        values: read("values.safetensors"),
        scalars: serde_json::from_slice(&read("json")).unwrap(),
    }
}

/// A golden tensor of f64 values in PyTorch's layout.
fn tensor(file: &[u8], name: &str) -> (Vec<usize>, Vec<f64>) {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let values = match view.dtype() {
        safetensors::Dtype::F64 => view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        _ => view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
    };
    (view.shape().to_vec(), values)
}

/// (N, C, H, W) to (N, H, W, C).
fn channels_last((shape, values): (Vec<usize>, Vec<f64>)) -> Vec<f64> {
    let [n, c, h, w] = shape[..] else { panic!("{shape:?} is not an image batch") };
    let mut out = vec![0.0; values.len()];
    for (i, value) in values.into_iter().enumerate() {
        let x = i % w;
        let y = i / w % h;
        let channel = i / (w * h) % c;
        let image = i / (w * h * c);
        out[((image * h + y) * w + x) * c + channel] = value;
    }
    assert!(n > 0);
    out
}

fn assert_close(name: &str, got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let error = got.iter().zip(expected).fold(0.0_f64, |m, (a, b)| m.max((f64::from(*a) - b).abs()));
    // A gradient that is exactly 0 in the reference (a bias before a norm has none) must be 0 up to rounding here.
    assert!(error <= TOLERANCE * largest.max(1e-6), "{name}: error {error:e}, largest value {largest:e}");
}

/// By the CPU's kernels, and by the operations that compute on a GPU.
#[rstest]
fn eval_mode(#[values("golden", "digit")] name: &str, #[values(false, true)] composed: bool) {
    eval(name, &target(composed));
}

/// The CPU, with its kernels or with composed operations.
fn target(composed: bool) -> Target {
    if composed { Target::composed(Precision::F32) } else { Target::cpu() }
}

fn eval(name: &str, target: &Target) {
    let golden = golden(name);
    let wae = Wae::from_tensors(golden.model.config().clone(), golden.model.tensors(), target).unwrap();
    let images: Vec<f32> = channels_last(tensor(&golden.values, "images")).iter().map(|v| *v as f32).collect();
    let codes = wae.encode(&images).unwrap();
    assert_close("latent", &codes, &tensor(&golden.values, "eval.latent").1);
    let reconstructions = wae.decode(&codes).unwrap();
    assert_close("image", &reconstructions, &channels_last(tensor(&golden.values, "eval.image")));
    assert_close("cost", &wae.costs(&images, &reconstructions).unwrap(), &tensor(&golden.values, "eval.cost").1);
}

/// bf16 keeps eight bits: near the golden codes, and not on them where the processor really computes in it.
#[test]
fn eval_mode_in_bf16() {
    let golden = golden("digit");
    let wae = Wae::try_new(&golden.model, Device::Cpu, Precision::Bf16).unwrap();
    let images: Vec<f32> = channels_last(tensor(&golden.values, "images")).iter().map(|v| *v as f32).collect();
    let (codes, (_, expected)) = (wae.encode(&images).unwrap(), tensor(&golden.values, "eval.latent"));
    let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    let error = codes.iter().zip(&expected).fold(0.0_f64, |m, (a, b)| m.max((f64::from(*a) - b).abs())) / largest;
    assert!(error < 0.02, "error {error:e}");
    let has_bf16 = crate::kernels::has_bf16() && !crate::kernels::is_composed();
    assert_eq!(error > TOLERANCE, has_bf16, "error {error:e}");
}

#[rstest]
fn training_mode_gradients_and_three_steps(
    #[values("golden", "digit")] name: &str,
    #[values(false, true)] composed: bool,
) {
    training_mode(name, &target(composed));
}

/// On the first CUDA GPU, where there is one.
#[cfg(feature = "cuda")]
#[rstest]
fn cuda_gives_the_golden_values(#[values("golden", "digit")] name: &str) {
    if let Some(target) = Target::gpu_of_tests(Precision::F32) {
        training_mode(name, &target);
        eval(name, &target);
    }
}

fn training_mode(name: &str, target: &Target) {
    let golden = golden(name);
    let config = golden.model.config().clone();
    let images: Vec<f32> = channels_last(tensor(&golden.values, "images")).iter().map(|v| *v as f32).collect();
    let shape = config.image();
    let rows = images.len() / shape.len();
    let images = target.tensor(images, &[rows, shape.height(), shape.width(), shape.channels()]).unwrap();

    let mut network = TrainingNetwork::from_tensors(&config, target, golden.model.tensors()).unwrap();
    let codes = network.encode(&images).unwrap();
    let close =
        |name: &str, got: &Tensor, expected: Vec<f64>| assert_close(name, &ops::to_vec(got).unwrap(), &expected);
    close("latent", &codes, tensor(&golden.values, "train.latent").1);
    let decoded = network.decode(&codes).unwrap();
    close("image", &decoded, channels_last(tensor(&golden.values, "train.image")));

    let mut network = TrainingNetwork::from_tensors(&config, target, golden.model.tensors()).unwrap();
    let step = Step::new(config.clone(), 0.0, 0.0);
    let rate = golden.scalars["learning_rate"].as_f64().unwrap();
    for i in 0..3 {
        let prior: Vec<f32> = tensor(&golden.values, &format!("prior.{i}")).1.iter().map(|v| *v as f32).collect();
        let draws = Draws::of_prior(prior, config.latent_dim(), target).unwrap();
        let (pending, _) = step.gradients(&mut network, &images, &draws, config.objective().lambda()).unwrap();
        let losses = pending.read().unwrap();
        let Losses { cost, divergence: Some(divergence), loss } = losses else { panic!("{losses:?}") };
        if i == 0 {
            assert_gradients(&golden, &network.gradients().unwrap());
        }
        let expected = |key: &str| golden.scalars["steps"][i][key].as_f64().unwrap();
        assert!((divergence - expected("mmd")).abs() < 1e-6, "MMD² of step {i}: {divergence}");
        assert!((cost / expected("cost") - 1.0).abs() < 1e-6, "cost of step {i}: {cost}");
        assert!((loss / expected("loss") - 1.0).abs() < 1e-5, "loss of step {i}: {loss}");
        network.step(rate).unwrap();
    }
    for (name, got) in network.tensors().unwrap() {
        assert_close(&name, &got.values, &tensor(&golden.after, &name).1);
    }
}

fn assert_gradients(golden: &Golden, got: &Tensors) {
    let file = SafeTensors::deserialize(&golden.values).unwrap();
    let names: Vec<_> = file.names().into_iter().filter_map(|n| n.strip_prefix("grad.")).collect();
    assert_eq!(names.len(), got.len(), "every parameter has a gradient");
    for name in names {
        assert_close(name, &got[name].values, &tensor(&golden.values, &format!("grad.{name}")).1);
    }
}

#[rstest]
#[case("golden")]
#[case("digit")]
fn divergences(#[case] name: &str) {
    use crate::config::{IMQ_SCALES, KernelKind, Prior, PriorKind};
    use crate::objective::mmd;
    let golden = golden(name);
    let (shape, q) = tensor(&golden.values, "mmd.q");
    let p = tensor(&golden.values, "mmd.p").1;
    let dim = shape[1];
    let narrow = |x: &[f64]| x.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    for scale in ["1.0", "1.5"] {
        for (key, kind, scales) in [
            ("imq 7 scales", KernelKind::Imq, &IMQ_SCALES[..]),
            ("imq 1 scale", KernelKind::Imq, &[1.0]),
            ("rbf", KernelKind::Rbf, &[]),
        ] {
            let expected = golden.scalars["mmd"][format!("{key} scale {scale}")].as_f64().unwrap();
            let kernel =
                mmd::Kernel::new(kind, scales, dim, Prior { kind: PriorKind::Normal, scale: scale.parse().unwrap() });
            let got = mmd::value(&kernel, &narrow(&q), &narrow(&p), dim).unwrap();
            assert!((got - expected).abs() < 1e-6, "{key}, scale {scale}: {got}, expected {expected}");
        }
    }
}

/// Both forms of the discriminator's losses: with log p(z), a value a row is added to each logit.
#[rstest]
#[case::plain("golden", "adversary")]
#[case::plain_digit("digit", "adversary")]
#[case::log_p("golden", "adversary_log_p")]
#[case::log_p_digit("digit", "adversary_log_p")]
fn discriminator_losses(#[case] name: &str, #[case] form: &str) {
    use crate::config::{Config, Parts, Prior, PriorKind};
    let golden = golden(name);
    let log_p = form == "adversary_log_p";
    let objective = Objective::Gan { adversary_widths: vec![8, 8], log_p, lambda: 1.0 };
    let prior = Prior { kind: PriorKind::Normal, scale: 1.5 };
    let parts = Parts { objective, prior, ..Parts::from(golden.model.config().clone()) };
    let config = Config::try_new(parts).unwrap();
    let mut tensors = golden.model.tensors().clone();
    for layer in ["0", "1", "out"] {
        for kind in ["weight", "bias"] {
            let (shape, values) = tensor(&golden.values, &format!("{form}.weights.layers.{layer}.{kind}"));
            let values = values.iter().map(|v| *v as f32).collect();
            tensors.insert(format!("adversary.{layer}.{kind}"), crate::checkpoint::TensorData { shape, values });
        }
    }
    let target = Target::cpu();
    let mut network = TrainingNetwork::from_tensors(&config, &target, &tensors).unwrap();
    let [q, p] = ["mmd.q", "mmd.p"].map(|name| {
        let (shape, values) = tensor(&golden.values, name);
        target.tensor(values.iter().map(|v| *v as f32).collect(), &shape).unwrap()
    });
    let logits = network.adversary_logits(&q).unwrap().to_dtype(candle_core::DType::F32).unwrap();
    let logits = ops::to_vec(&logits).unwrap();
    assert_close("logits", &logits, &tensor(&golden.values, &format!("{form}.logits")).1);
    let expected = |key: &str| golden.scalars[form][key].as_f64().unwrap();
    let of_encoder = number(&network.adversary_loss(&q).unwrap()).unwrap();
    assert!((of_encoder - expected("encoder")).abs() < 1e-5, "{of_encoder}");
    let of_discriminator = number(&network.step_adversary(&q, &p, 1e-3).unwrap()).unwrap();
    assert!((of_discriminator - expected("discriminator")).abs() < 1e-5, "{of_discriminator}");
}

#[rstest]
#[case("golden")]
#[case("digit")]
fn kl_and_log_density(#[case] name: &str) {
    use crate::objective::{adversary, kl};
    let golden = golden(name);
    let [means, log_variances] = ["mmd.q", "mmd.p"].map(|name| {
        let (shape, values) = tensor(&golden.values, name);
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        Target::cpu().tensor(values, &shape).unwrap()
    });
    let narrow = |values: &Tensor| ops::to_vec(&values.to_dtype(candle_core::DType::F32).unwrap()).unwrap();
    let density = adversary::log_density(&means, 1.5).unwrap();
    assert_close("log density", &narrow(&density), &tensor(&golden.values, "density").1);
    let rows = 0..means.dim(0).unwrap();
    let kl = rows.map(|row| {
        let [means, log_variances] = [&means, &log_variances].map(|x| x.narrow(0, row, 1).unwrap());
        number(&kl::divergence(&means, &log_variances, 1.5).unwrap()).unwrap() as f32
    });
    assert_close("KL", &kl.collect::<Vec<_>>(), &tensor(&golden.values, "kl").1);
}
