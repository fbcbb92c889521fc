//! The promises of the training loop beside the mathematics.

mod augmented;
mod backbone;
mod features;
pub(crate) mod golden;
mod objectives;
mod resumed;
mod statistics;

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::step::Generators;
use super::*;
use crate::dataset::DatasetBuilder;
use crate::image::{ImageColumn, ImageShape, Limits, Pixels};

/// Options by name.
type GivenOptions = [(&'static str, serde_json::Value)];

/// A training on 40 images of 4×4 pixels.
pub(crate) fn trainer(options: &[(&str, serde_json::Value)]) -> Trainer {
    let options = TrainOptions::try_from_options(options.iter().cloned()).unwrap();
    let images = dataset(&options, 0);
    Trainer::try_new(options, images).unwrap()
}

/// As [`trainer`], with the operations that compute on a GPU.
fn composed_trainer(options: &[(&str, serde_json::Value)]) -> Trainer {
    let options = TrainOptions::try_from_options(options.iter().cloned()).unwrap();
    let images = dataset(&options, 0);
    Trainer::on_target(options, images, Target::composed(crate::Precision::F32)).unwrap()
}

/// The 40 images, or others where `shift` is not 0.
fn dataset(options: &TrainOptions, shift: usize) -> Dataset {
    let pixels = UInt8Array::from_iter_values((shift..shift + 40 * 16).map(|i| (i * i % 251) as u8));
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let images: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, 16, Arc::new(pixels), None).unwrap());
    let field = Field::new("image", arrow::array::Array::data_type(&images).clone(), true);
    let column = ImageColumn::try_new(&field, &images, Some(ImageShape::new(4, 4, 1))).unwrap();
    let mut builder = DatasetBuilder::new(options, Limits::default(), false);
    builder.push(&column).unwrap();
    builder.finish().unwrap()
}

fn finish(mut trainer: Trainer) -> Trainer {
    trainer.epochs().for_each(|epoch| assert!(epoch.is_ok(), "{epoch:?}"));
    trainer
}

#[test]
fn the_learning_rate_follows_its_schedule() {
    // Four steps an epoch: the rate falls by epochs, not by steps, and the first step of Adam moves a weight by just
    // it.
    let options =
        [("network", "4".into()), ("epochs", 5.into()), ("learning_rate", 0.01.into()), ("batch_size", 9.into())];
    let mut first = trainer(&options);
    let before = first.network.tensors().unwrap();
    first.epochs().next().unwrap().unwrap();
    let after = first.network.tensors().unwrap();
    let name = "decoder.out.conv.bias";
    let moved = f64::from((after[name].values[0] - before[name].values[0]).abs());
    assert!(moved > 0.03 && moved < 0.05, "four steps of about 0.01: {moved}");
    let trainer = finish(first);
    let rates: Vec<f64> = trainer.history().iter().map(|r| r.learning_rate).collect();
    assert_eq!(rates, [0.01, 0.01, 0.01, 0.005, 0.002]);
}

#[test]
fn each_epoch_and_seed_shuffles_and_draws_anew() {
    let order = |seed, epoch| {
        let mut rows: Vec<usize> = (0..40).collect();
        rows.shuffle(&mut generator(seed, Purpose::Shuffle, epoch));
        rows
    };
    assert_ne!(order(0, 1), order(0, 2));
    assert_ne!(order(0, 1), order(1, 1));
    let draws = |seed, epoch| Generators::new(seed, epoch).prior.random::<u64>();
    assert_ne!(draws(0, 1), draws(0, 2));
    assert_ne!(draws(0, 1), draws(1, 1));
    let losses = |seed: u64| {
        let options = [("network", "4".into()), ("epochs", 2.into()), ("seed", seed.into()), ("batch_size", 18.into())];
        finish(trainer(&options)).history().iter().map(|r| r.divergence).collect::<Vec<_>>()
    };
    assert_eq!(losses(0), losses(0));
    assert_ne!(losses(0), losses(1));
}

#[rstest::rstest]
#[case::mmd(&[])]
#[case::gan(&[("objective", "gan".into()), ("adversary_widths", "70,8".into())])]
#[case::vae(&[("objective", "vae".into()), ("cost", "structural".into())])]
#[case::sliced(&[("objective", "sliced".into()), ("noise", 0.1.into())])]
#[case::sinkhorn(&[("objective", "sinkhorn".into()), ("pretrain", true.into())])]
#[case::augment(&[("augment", "flip,shift,brightness".into()), ("size", 16.into())])]
fn the_number_of_threads_changes_nothing(#[case] more: &GivenOptions) {
    let tensors = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut options = vec![("network", "8,70".into()), ("epochs", 2.into()), ("batch_size", 13.into())];
            options.extend(more.iter().cloned());
            finish(trainer(&options)).network.tensors().unwrap()
        })
    };
    assert!(tensors(1) == tensors(3));
}

/// Weights that are not numbers: the loss says so, says where and what to try, and no model is made of them.
#[test]
fn a_diverged_network_stops_training_and_is_no_model() {
    let mut trainer = trainer(&[("network", "4".into()), ("learning_rate", 0.5.into())]);
    let mut tensors = trainer.network.tensors().unwrap();
    tensors.get_mut("decoder.out.conv.bias").unwrap().values[0] = f32::NAN;
    trainer.network = TrainingNetwork::from_tensors(&trainer.config, trainer.network.target(), &tensors).unwrap();
    let error = trainer.epochs().next().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("the loss is not finite at epoch 1, step 1: reconstruction cost NaN"), "{error}");
    assert!(error.ends_with("Try a learning_rate below 5e-1, or a lambda below 4.081632653061225"), "{error}");
    let error = trainer.model().unwrap_err().to_string();
    assert_eq!(error, "tensor 'decoder.out.conv.bias' is not finite after training: try a smaller learning_rate");
}

/// A first step that throws the weights far off: the second is named, though a GPU has begun a third by the time it is
/// read.
#[test]
fn the_step_that_diverged_is_named() {
    let mut trainer = trainer(&[("network", "4".into()), ("batch_size", 4.into())]);
    trainer.options.learning_rate = 1e30;
    let error = trainer.epochs().next().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("the loss is not finite at epoch 1, step 2: "), "{error}");
    trainer.model().unwrap_err();
}

#[test]
fn options_that_the_images_were_not_collected_under_are_refused() {
    let first = trainer(&[("network", "4".into())]);
    let options = TrainOptions { seed: 7, ..first.options.clone() };
    let error = Trainer::try_new(options, first.dataset).unwrap_err().to_string();
    assert_eq!(
        error,
        "the images were collected under another seed, holdout, size, crop, input, components, backbone or layer"
    );
    let first = trainer(&[("network", "4".into())]);
    let options = TrainOptions { batch_size: 0, ..first.options.clone() };
    let error = Trainer::try_new(options, first.dataset).unwrap_err().to_string();
    assert_eq!(error, "option 'batch_size' must be an integer between 2 and 1048576, got 0");
}

/// On a GPU a constant λ lets the losses of several steps be read together, and an adaptive one, which moves every
/// 1,000 steps, does not. (On the processor both are read at once.)
#[test]
fn losses_that_are_read_late_are_the_same() {
    let of = |schedule: &str| {
        let options = [
            ("network", "4".into()),
            ("epochs", 2.into()),
            ("batch_size", 7.into()),
            ("noise", 0.1.into()),
            ("lambda_schedule", schedule.into()),
        ];
        let trainer = finish(trainer(&options));
        let history: Vec<_> = trainer.history().iter().map(|r| (r.loss, r.reconstruction_cost, r.divergence)).collect();
        (history, trainer.network.tensors().unwrap())
    };
    assert!(of("constant") == of("adaptive"));
}
