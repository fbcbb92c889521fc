//! Random changes of training images: of the steps, and of nothing else.

use serde_json::{Value, json};

use super::*;

/// Images of 16×16, whose sides a shift can move.
fn augmented(more: &GivenOptions) -> Trainer {
    let given = [
        ("network", json!("4,8")),
        ("epochs", json!(2)),
        ("batch_size", json!(9)),
        ("holdout", json!(0.2)),
        ("size", json!(16)),
    ];
    trainer(&given.into_iter().chain(more.iter().cloned()).collect::<Vec<_>>())
}

fn augment(text: &str) -> (&'static str, Value) {
    ("augment", json!(text))
}

#[test]
fn every_change_gives_other_weights_and_the_same_twice() {
    let choices = [None, Some("flip"), Some("shift"), Some("brightness"), Some("flip,shift,brightness")];
    let of = |choice: Option<&str>| {
        finish(augmented(&choice.map(augment).into_iter().collect::<Vec<_>>())).network.tensors().unwrap()
    };
    let weights: Vec<_> = choices.into_iter().map(of).collect();
    for (i, one) in weights.iter().enumerate() {
        assert!(weights[..i].iter().all(|other| other != one), "{:?}", choices[i]);
        assert!(of(choices[i]) == *one, "{:?}", choices[i]);
    }
}

/// Before the first step: held-out rows and the statistics of training rows are of the images as they are.
#[test]
fn only_steps_see_the_changes() {
    let plain = augmented(&[]);
    let changed = augmented(&[augment("flip,shift,brightness")]);
    assert_eq!(changed.evaluate().unwrap(), plain.evaluate().unwrap());
    let plain = plain.model().unwrap();
    let changed = changed.model().unwrap();
    assert!(changed.latent().unwrap() == plain.latent().unwrap());
    assert!(changed.calibration().unwrap() == plain.calibration().unwrap());
}

/// On a GPU the changes are those of the processor: they are made before the batch goes there.
#[test]
fn the_composed_operations_train_on_the_same_changes() {
    let given = [("size", json!(16)), ("batch_size", json!(9)), augment("flip,shift,brightness")];
    let batch = |trainer: &Trainer| {
        let mut generator = generator(0, Purpose::Augmentation, 1);
        let batch = trainer.augmented_batch(&[3, 1, 2], &mut generator).unwrap();
        batch.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let changed = batch(&trainer(&given));
    assert_eq!(changed, batch(&composed_trainer(&given)));
    assert_ne!(changed, trainer(&given).dataset.training(&[3, 1, 2]).unwrap());
}
