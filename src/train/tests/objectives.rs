//! The promises of every objective: its gradient is that of its loss, its training is finite, λ weighs it, and scores
//! are no random numbers. Each mistake that public code makes has a test here or beside the formula that would turn
//! red.

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::checkpoint::Tensors;
use crate::config::Prior;
use crate::device::{Device, Precision};
use crate::model::Wae;
use crate::objective::{moments, prior};
use crate::ops::Tensor;
use crate::train::step::{Draws, Rates, number};

/// The loss of one batch as a function of the network's tensors.
struct Objectives {
    config: Config,
    step: Step,
    images: Tensor,
    draws: Draws,
    target: Target,
}

impl Objectives {
    fn new(options: &GivenOptions) -> (Self, Tensors) {
        let mut trainer = trainer(options);
        let images = trainer.batch(&[0, 1, 2, 3, 4, 5]).unwrap();
        let target = trainer.network.target().clone();
        let draws = trainer.step.draw(6, &mut Generators::new(3, 1), &target).unwrap();
        // Weights of a size at which differences are seen.
        let tensors = trainer.network.tensors().unwrap();
        let config = trainer.config.clone();
        let step = std::mem::replace(&mut trainer.step, Step::new(config.clone(), 0.0, 0.0));
        (Self { config, step, images, draws, target }, tensors)
    }

    fn run(&self, tensors: &Tensors) -> (f64, Tensors) {
        let mut network = TrainingNetwork::from_tensors(&self.config, &self.target, tensors).unwrap();
        let lambda = self.config.objective().lambda();
        let (pending, _) = self.step.gradients(&mut network, &self.images, &self.draws, lambda).unwrap();
        (pending.read().unwrap().loss, network.gradients().unwrap())
    }
}

fn draw(trainer: &Trainer, rows: usize) -> Draws {
    trainer.step.draw(rows, &mut Generators::new(0, 1), trainer.network.target()).unwrap()
}

/// Along the gradient of the encoder's head and the decoder's stem, the loss rises by the gradient's squared length.
#[rstest]
#[case::mmd(&[])]
#[case::rbf(&[("kernel", json!("rbf"))])]
#[case::gan(&[("objective", json!("gan")), ("adversary_widths", json!("8,8"))])]
#[case::log_p(&[("objective", json!("gan")), ("adversary_widths", json!("8")), ("log_p", json!(true)), ("prior_scale", json!(1.5))])]
#[case::vae(&[("objective", json!("vae")), ("prior_scale", json!(1.5))])]
#[case::ae(&[("objective", json!("ae"))])]
#[case::sliced(&[("objective", json!("sliced"))])]
#[case::sinkhorn(&[("objective", json!("sinkhorn"))])]
#[case::gaussian(&[("encoder", json!("gaussian")), ("log_variance_penalty", json!(2))])]
#[case::sphere(&[("prior", json!("sphere")), ("prior_scale", json!(1.5))])]
#[case::uniform(&[("prior", json!("uniform")), ("encoder", json!("gaussian"))])]
#[case::structural(&[("cost", json!("structural")), ("noise", json!(0.1))])]
fn the_gradient_is_that_of_the_loss(#[case] options: &GivenOptions) {
    let mut all = vec![("network", json!("4")), ("latent_dim", json!(3)), ("lambda", json!(5))];
    if options.iter().any(|(_, v)| *v == json!("ae")) {
        all.pop();
    }
    all.extend(options.iter().cloned());
    let (objective, tensors) = Objectives::new(&all);
    let (_, gradients) = objective.run(&tensors);
    let names = ["encoder.head.weight", "encoder.head.bias", "decoder.stem.weight"];
    let length: f64 =
        names.iter().flat_map(|name| &gradients[*name].values).map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let moved = |by: f64| {
        let mut tensors = tensors.clone();
        for name in names {
            let values = &mut tensors.get_mut(name).unwrap().values;
            values.iter_mut().zip(&gradients[name].values).for_each(|(v, g)| *v += (by / length) as f32 * g);
        }
        objective.run(&tensors).0
    };
    let numeric = (moved(2e-3) - moved(-2e-3)) / 4e-3;
    assert!((numeric / length - 1.0).abs() < 0.01, "slope {numeric}, length of the gradient {length}");
}

#[rstest]
#[case("mmd")]
#[case("gan")]
#[case("aae")]
#[case("vae")]
#[case("ae")]
#[case("sliced")]
#[case("sinkhorn")]
fn three_epochs_are_finite_and_scores_no_random_numbers(#[case] objective: &str) {
    let options =
        [("network", json!("4,8")), ("epochs", json!(3)), ("objective", json!(objective)), ("noise", json!(0.05))];
    let trainer = finish(trainer(&options));
    assert!(trainer.history().iter().all(|report| report.loss.is_finite()));
    let has_divergence = objective != "ae";
    assert!(trainer.history().iter().all(|report| report.divergence.is_some() == has_divergence));
    assert!(trainer.history().iter().all(|report| report.holdout_divergence.is_some() == has_divergence));
    let file = crate::ModelFile::from_bytes(&trainer.model().unwrap().to_bytes().unwrap()).unwrap();
    let wae = Wae::try_new(&file, Device::Cpu, Precision::F32).unwrap();
    let images = trainer.dataset.training(&[0, 1, 2]).unwrap();
    let codes = wae.encode(&images).unwrap();
    assert_eq!(codes.len(), 3 * trainer.config().latent_dim());
    assert_eq!(codes, wae.encode(&images).unwrap(), "scoring neither samples nor adds noise");
    // A row's code is its own, as norms use what training kept and not the batch.
    assert_eq!(codes[..trainer.config().latent_dim()], wae.encode(&images[..16]).unwrap());
}

/// By composed operations, every objective trains to the kernels' losses but for rounding.
#[rstest]
fn composed_operations_train_as_the_kernels(
    #[values("mmd", "gan", "vae", "ae", "sliced", "sinkhorn")] objective: &str,
    #[values("squared", "structural")] cost: &str,
) {
    let options =
        [("network", json!("4,8")), ("epochs", json!(3)), ("objective", json!(objective)), ("cost", json!(cost))];
    let expected = finish(trainer(&options));
    let got = finish(composed_trainer(&options));
    for (got, expected) in got.history().iter().zip(expected.history()) {
        assert!((got.loss / expected.loss - 1.0).abs() < 0.01, "{} {}", got.loss, expected.loss);
        let costs = [got, expected].map(|report| report.holdout_reconstruction_cost.unwrap());
        assert!((costs[0] / costs[1] - 1.0).abs() < 0.01, "{costs:?}");
    }
}

#[test]
fn lambda_is_applied() {
    let tensors = |lambda: f64| {
        let options = [("network", json!("4")), ("epochs", json!(1)), ("lambda", json!(lambda))];
        finish(trainer(&options)).network.tensors().unwrap()
    };
    assert!(tensors(0.0) != tensors(100.0));
    // Without weight, MMD trains what `ae` trains.
    let ae = [("network", json!("4")), ("epochs", json!(1)), ("objective", json!("ae"))];
    assert!(tensors(0.0) == finish(trainer(&ae)).network.tensors().unwrap());
}

/// The encoder goes forward once a step: its norms' running statistics move once.
#[test]
fn a_step_of_gan_encodes_once() {
    let options = [("network", json!("4")), ("objective", json!("gan")), ("adversary_widths", json!("8"))];
    let mut trainer = trainer(&options);
    let images = trainer.batch(&[0, 1, 2, 3]).unwrap();
    let draws = draw(&trainer, 4);
    let before = trainer.network.tensors().unwrap();
    let rates = Rates { network: 1e-9, adversary: 1e-3 };
    trainer.step.run(&mut trainer.network, &images, &draws, 1.0, rates).unwrap();
    let after = trainer.network.tensors().unwrap();
    let mut once = TrainingNetwork::from_tensors(trainer.config(), trainer.network.target(), &before).unwrap();
    once.encode(&images).unwrap();
    let name = "encoder.0.norm.running_mean";
    assert_eq!(after[name], once.tensors().unwrap()[name]);
    assert_ne!(after["adversary.0.weight"], before["adversary.0.weight"], "the discriminator learns too");
}

/// The discriminator's step is on codes that count as constants, and the encoder's on a discriminator that does.
#[test]
fn each_side_of_gan_leaves_the_others_weights() {
    let options = [("network", json!("4")), ("objective", json!("gan")), ("adversary_widths", json!("8"))];
    let mut trainer = trainer(&options);
    let draws = draw(&trainer, 4);
    let before = trainer.network.tensors().unwrap();
    let codes = (draws.prior.zeros_like().unwrap() + 0.5).unwrap();
    trainer.network.step_adversary(&codes, &draws.prior, 0.1).unwrap();
    let after = trainer.network.tensors().unwrap();
    let changed = |name: &str| before[name] != after[name];
    assert!(changed("adversary.0.weight") && changed("adversary.out.bias"));
    assert!(!before.keys().any(|name| !name.starts_with("adversary") && changed(name)));

    let before = after;
    let images = trainer.batch(&[0, 1, 2, 3]).unwrap();
    trainer.step.gradients(&mut trainer.network, &images, &draws, 1.0).unwrap();
    trainer.network.step(0.1).unwrap();
    let after = trainer.network.tensors().unwrap();
    let changed = |name: &str| before[name] != after[name];
    assert!(changed("encoder.0.conv.weight") && changed("decoder.out.conv.bias"));
    assert!(!before.keys().any(|name| name.starts_with("adversary") && changed(name)));
}

/// The image to rebuild is the clean one: its cost is that of what noisy input is decoded to.
#[test]
fn noise_is_the_encoders_alone() {
    let mut trainer = trainer(&[("network", json!("4")), ("noise", json!(0.5))]);
    let images = trainer.batch(&[0, 1, 2, 3]).unwrap();
    let draws = draw(&trainer, 4);
    let tensors = trainer.network.tensors().unwrap();
    let (pending, codes) = trainer.step.gradients(&mut trainer.network, &images, &draws, 1.0).unwrap();
    let mut same = TrainingNetwork::from_tensors(trainer.config(), trainer.network.target(), &tensors).unwrap();
    let decoded = same.decode(&codes).unwrap();
    let cost = crate::objective::cost::CostFunction::of(trainer.config());
    let expected = trainer.network.target().operations().pointwise.cost(&cost, &images, &decoded).unwrap().0;
    assert_eq!(pending.read().unwrap().cost, number(&expected).unwrap());
}

/// A discriminator that is trained tells codes from draws: its loss falls below that of a coin.
#[test]
fn the_discriminator_learns_to_tell_codes_from_draws() {
    let options = [("network", json!("4")), ("objective", json!("gan")), ("adversary_widths", json!("32"))];
    let mut trainer = trainer(&options);
    let dim = trainer.config().latent_dim();
    let target = trainer.network.target().clone();
    let sample = |seed| target.tensor(prior::sample(Prior::default(), 100, dim, seed), &[100, dim]).unwrap();
    let draws = sample(1);
    let codes = (sample(2) + 2.0).unwrap();
    let mut step = || number(&trainer.network.step_adversary(&codes, &draws, 1e-2).unwrap()).unwrap();
    let losses: Vec<f64> = (0..50).map(|_| step()).collect();
    assert!(losses[0] > 1.2 && losses[49] < 0.2, "{losses:?}");
}

#[test]
fn pretraining_brings_codes_near_the_prior() {
    let moments_of = |pretrain: bool| {
        let mut trainer = trainer(&[("network", json!("8")), ("latent_dim", json!(2)), ("pretrain", json!(pretrain))]);
        if pretrain {
            trainer.pretrain().unwrap();
            assert_eq!(trainer.network.steps(), 0, "Adam begins anew");
        }
        let rows: Vec<usize> = (0..trainer.dataset.training_rows()).collect();
        let images = trainer.batch(&rows).unwrap();
        let codes = trainer.network.encode(&images).unwrap();
        let draws = prior::sample(trainer.config().prior(), 5000, 2, 5);
        let draws = trainer.network.target().tensor(draws, &[5000, 2]).unwrap();
        number(&moments::distance(&codes, &draws).unwrap()).unwrap()
    };
    let without = moments_of(false);
    let with = moments_of(true);
    assert!(with < 0.5 && with < 0.3 * without, "{with} with, {without} without");
}

/// ½λ + ½·cost/|divergence| after 1,000 steps of the authors' adaptive schedule.
#[test]
fn adaptive_lambda_moves_in_training() {
    let options = [
        ("network", json!("2")),
        ("batch_size", json!(2)),
        ("epochs", json!(60)),
        ("lambda_schedule", json!("adaptive")),
        ("kernel", json!(1)),
    ];
    let before = trainer(&options).lambda;
    assert_ne!(finish(trainer(&options)).lambda, before);
}
