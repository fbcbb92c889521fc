//! The engine on real images, through its public interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};
use support::baseline::{Pca, auroc};
use support::fixture::{CLOTHES, Images, images};
use wae_core::calibrate::Score;
use wae_core::image::Limits;
use wae_core::{
    Dataset, DatasetBuilder, Device, EpochReport, Error, ImageShape, ModelFile, Precision, TrainOptions, Trainer, Wae,
};

const FASHION: ImageShape = ImageShape::new(28, 28, 1);

fn options(options: &[(&str, Value)]) -> TrainOptions {
    TrainOptions::try_from_options(options.iter().cloned()).unwrap()
}

fn dataset(options: &TrainOptions, images: &Images) -> Dataset {
    let mut builder = DatasetBuilder::new(options, Limits::default(), false);
    builder.push(&images.column()).unwrap();
    builder.finish().unwrap()
}

fn train(options: TrainOptions, images: &Images) -> (Vec<EpochReport>, ModelFile) {
    let dataset = dataset(&options, images);
    let mut trainer = Trainer::try_new(options, dataset).unwrap();
    trainer.epochs().for_each(|epoch| assert!(epoch.is_ok(), "{epoch:?}"));
    (trainer.history().to_vec(), trainer.model().unwrap())
}

fn scorer(model: &ModelFile) -> Wae {
    Wae::try_new(model, Device::Cpu, Precision::F32).unwrap()
}

/// The quickstart's task in miniature: clothes are normal, shoes and bags are not.
#[test]
fn learns_clothes_better_than_principal_components() {
    let (clothes, others) =
        (images("fashion/train.parquet", Some(&CLOTHES)), images("fashion/test.parquet", Some(&[5, 7, 8, 9])));
    let options = options(&[("network", json!("small")), ("epochs", json!(8))]);
    let held_out = dataset(&options, &clothes);
    let held_out = held_out.held_out(0..held_out.held_out_rows()).unwrap();
    let (history, model) = train(options, &clothes);
    let last = history.last().unwrap();

    let pca = Pca::fit(&clothes.pixels(usize::MAX, FASHION), FASHION.len(), 8).unwrap();
    let costs = pca.costs(&held_out).unwrap();
    let pca_cost = f64::from(costs.iter().sum::<f32>()) / costs.len() as f64;
    let cost = last.holdout_reconstruction_cost.unwrap();
    assert!(cost < 0.95 * pca_cost, "held-out cost {cost}, of principal components {pca_cost}");
    assert!(cost < 0.5 * history[0].reconstruction_cost, "{cost} after {}", history[0].reconstruction_cost);
    // A collapsed encoder would stay near 1.8 (objective::mmd).
    assert!(last.holdout_divergence.unwrap() < 0.1, "{:?}", last.holdout_divergence);

    let wae = scorer(&model);
    let score = |images: &[f32]| wae.costs(images, &wae.decode(&wae.encode(images).unwrap()).unwrap()).unwrap();
    let normal = score(&images("fashion/test.parquet", Some(&CLOTHES)).pixels(usize::MAX, FASHION));
    let strange = score(&others.pixels(usize::MAX, FASHION));
    let area = auroc(&normal, &strange);
    assert!(area >= 0.95, "AUROC {area}");

    // Three standard errors above alpha, for n_cal = 420 and n_test = 900 (reference: conformal p-values).
    let costs = wae.calibration().unwrap().scores(Score::Cost).unwrap();
    let alarms = normal.iter().filter(|c| costs.p_value(**c) <= 0.05).count() as f64 / normal.len() as f64;
    let error = (0.05_f64 * 0.95 * (1.0 / costs.len() as f64 + 1.0 / normal.len() as f64)).sqrt();
    assert!(alarms <= 0.05 + 3.0 * error, "false alarms {alarms}");
}

/// Colour, JPEG beside PNG, another size, and a code that comes back from the file as it was.
#[test]
fn trains_on_colour_emoji_and_round_trips_through_a_file() {
    let emoji = images("emoji/train.parquet", None);
    let shape = ImageShape::new(64, 64, 3);
    let options = options(&[
        ("network", json!("16,32,64")),
        ("epochs", json!(6)),
        ("batch_size", json!(32)),
        ("latent_dim", json!(16)),
    ]);
    let (history, model) = train(options, &emoji);
    assert!(history[5].reconstruction_cost < 0.6 * history[0].reconstruction_cost, "{history:?}");
    let pixels = images("emoji/test.parquet", None).pixels(8, shape);
    let codes = scorer(&model).encode(&pixels).unwrap();
    assert_eq!(codes.len(), 8 * 16);

    let folder = std::env::temp_dir().join(format!("wae-engine-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("emoji.safetensors");
    model.write(&path).unwrap();
    let again = ModelFile::read(&path).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(again == model, "the model changed on its way through a file");
    assert_eq!(scorer(&again).encode(&pixels).unwrap(), codes);
}

/// Five seeds, three epochs: every loss is finite, and the last cost below the first.
#[test]
fn no_objective_diverges() {
    let clothes = images("fashion/test.parquet", Some(&CLOTHES));
    for objective in ["mmd", "gan", "aae", "vae", "ae", "sliced", "sinkhorn"] {
        for seed in 0..5 {
            let options = options(&[
                ("objective", json!(objective)),
                ("seed", json!(seed)),
                ("network", json!("8,16")),
                ("epochs", json!(3)),
                ("batch_size", json!(50)),
            ]);
            let (history, _) = train(options, &clothes);
            assert!(history.iter().all(|epoch| epoch.loss.is_finite()), "{objective}, seed {seed}: {history:?}");
            let costs = [history[0].reconstruction_cost, history[2].reconstruction_cost];
            assert!(costs[1] < 0.8 * costs[0], "{objective}, seed {seed}: {costs:?}");
        }
    }
}

#[test]
fn the_same_seed_trains_the_same_model() {
    let clothes = images("fashion/test.parquet", Some(&CLOTHES));
    let options = || options(&[("network", json!("8,16")), ("epochs", json!(2)), ("seed", json!(3))]);
    let ((first_history, first), (second_history, second)) = (train(options(), &clothes), train(options(), &clothes));
    for (a, b) in first_history.iter().zip(&second_history) {
        assert_eq!(
            (a.loss, a.holdout_reconstruction_cost, a.holdout_divergence),
            (b.loss, b.holdout_reconstruction_cost, b.holdout_divergence)
        );
    }
    assert_eq!(first.calibration(), second.calibration());
    let codes = |model: &ModelFile| scorer(model).encode(&clothes.pixels(50, FASHION)).unwrap();
    assert_eq!(codes(&first), codes(&second));
    let other = TrainOptions { seed: 4, ..options() };
    assert_ne!(codes(&train(other, &clothes).1), codes(&first));
}

/// Ten steps of each of the paper's networks: they are large, so this is about shapes, not about learning.
#[test]
fn the_papers_networks_take_steps() {
    let fashion = images("fashion/test.parquet", None);
    let emoji = images("emoji/train.parquet", None);
    for (network, images) in [("mnist", &fashion), ("celeba", &emoji)] {
        let options = options(&[
            ("network", json!(network)),
            ("epochs", json!(1)),
            ("batch_size", json!(8)),
            ("latent_dim", json!(8)),
        ]);
        let rows = Images { field: images.field.clone(), array: images.array.slice(0, 90) };
        let (history, model) = train(options, &rows);
        assert!(history[0].loss.is_finite() && model.parameters() > 20_000_000, "{network}");
    }
}

#[test]
fn cancelling_stops_within_a_step() {
    let options = options(&[("network", json!("8"))]);
    let dataset = dataset(&options, &images("fashion/test.parquet", None));
    let flag = Arc::new(AtomicBool::new(true));
    let mut trainer = Trainer::try_new(options, dataset).unwrap().cancelled_by(flag);
    assert!(matches!(trainer.epochs().next(), Some(Err(Error::Cancelled))));
    assert!(trainer.history().is_empty());
}
