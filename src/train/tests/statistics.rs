//! The statistics of the anomaly map after a training.

use super::*;
use crate::calibrate::Score;
use crate::checkpoint::ModelFile;
use crate::config::ScoreScale;
use crate::device::{Device, Precision};
use crate::model::Wae;

fn trained(more: &GivenOptions) -> (Trainer, ModelFile) {
    let mut options = vec![("network", "4".into()), ("epochs", 2.into()), ("batch_size", 9.into())];
    options.extend(more.iter().cloned());
    let trainer = finish(trainer(&options));
    let file = trainer.model().unwrap();
    (trainer, file)
}

/// The terms of images of 4×4 pixels in the anomaly map.
fn terms(wae: &Wae, images: &[f32]) -> Vec<f32> {
    let reconstructions = wae.decode(&wae.encode(images).unwrap()).unwrap();
    wae.anomaly_terms(None, images.into(), &reconstructions).unwrap()
}

fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got}, expected {expected}");
}

/// Once more from the definition, by the training rows alone. One scale, so fine that nothing is smoothed.
#[test]
fn statistics_are_those_of_the_training_rows() {
    let (trainer, file) = trained(&[("score_scales", 32.into()), ("holdout", 0.3.into())]);
    let wae = Wae::try_new(&file, Device::Cpu, Precision::F32).unwrap();
    let rows: Vec<usize> = (0..trainer.dataset.training_rows()).collect();
    let terms = terms(&wae, &trainer.dataset.training(&rows).unwrap());
    let mean =
        |place: usize| terms.iter().skip(place).step_by(16).map(|t| f64::from(*t)).sum::<f64>() / rows.len() as f64;
    let floor = (0..16).map(mean).sum::<f64>() / 160.0;
    let usual: Vec<f64> = (0..16).map(|place| mean(place) + floor).collect();
    let statistics = file.anomaly().unwrap();
    statistics.usual().iter().zip(&usual).for_each(|(got, expected)| near(f64::from(*got), *expected));
    let largest = |row: &[f32]| row.iter().zip(&usual).map(|(t, v)| f64::from(*t) / v).fold(0.0, f64::max).ln();
    let mut sizes: Vec<f64> = terms.chunks_exact(16).map(largest).collect();
    sizes.sort_by(f64::total_cmp);
    let between = |share: f64| {
        let place = share * (sizes.len() - 1) as f64;
        let below = sizes[place as usize];
        below + place.fract() * (sizes[(place as usize + 1).min(sizes.len() - 1)] - below)
    };
    near(f64::from(statistics.levels()[0]), between(0.5));
    near(f64::from(statistics.levels()[1]), between(0.95));
}

#[test]
fn held_out_rows_are_ranked_by_the_largest_place() {
    let (trainer, file) = trained(&[("holdout", 0.3.into())]);
    assert_eq!(
        (file.config().score(), file.config().score_scales()),
        (Score::AnomalyScore, &ScoreScale::OF_IMAGES[..])
    );
    let wae = Wae::try_new(&file, Device::Cpu, Precision::F32).unwrap();
    let rows = trainer.dataset.held_out_rows();
    let Pixels::U8(bytes) = trainer.dataset.held_out_pixels(0..rows).unwrap() else { panic!("images are bytes") };
    let reconstructions = wae.decode(&wae.encode(&bytes).unwrap()).unwrap();
    let fields = wae.anomaly_fields(&bytes, &reconstructions).unwrap().values;
    let mut largest: Vec<f32> =
        fields.chunks_exact(16).map(|field| field.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
    assert_eq!(wae.anomalies(&bytes, &reconstructions).unwrap(), largest);
    largest.sort_by(f32::total_cmp);
    let held_out = file.calibration().unwrap().scores(Score::AnomalyScore).unwrap();
    assert_eq!(held_out.values(), largest);
    // Half is the largest of so few, and nothing of what was held out is stranger.
    let scale = wae.anomaly_scale().unwrap();
    assert_eq!(largest.last().map(|f| scale.of(*f)), Some(0.5));
}

/// A model without held-out rows has a map: f is measured from the median training row.
#[test]
fn a_map_needs_no_held_out_rows() {
    let (_, file) = trained(&[("holdout", 0.into())]);
    assert!(file.calibration().is_none() && file.anomaly().is_some());
    assert_eq!(file.anomaly_scale().map(|scale| scale.of(0.0)), Some(0.5));
}

#[test]
fn the_file_holds_the_map() {
    let (_, file) = trained(&[("score_scales", "16,8,whole".into())]);
    let bytes = file.to_bytes().unwrap();
    assert!(ModelFile::from_bytes(&bytes).unwrap() == file);
    assert!(String::from_utf8_lossy(&bytes).contains(r#""format":"wae/2""#));
    assert_eq!(file.anomaly().unwrap().levels().len(), 3 * 2);
}

/// Two trainings, one of them resumed with other scales: the tensors of the network are the same.
#[test]
fn the_scales_change_no_weight() {
    let (_, file) = trained(&[]);
    let (_, other) = trained(&[("score_scales", "4".into())]);
    assert!(file.tensors() == other.tensors() && file.anomaly() != other.anomaly());
    assert_eq!(file.calibration().unwrap().scores(Score::Cost), other.calibration().unwrap().scores(Score::Cost));
}

#[test]
fn a_resumed_training_may_have_other_scales() {
    let options = [("network", "4".into()), ("epochs", 2.into()), ("batch_size", 9.into())];
    let mut first = trainer(&options);
    first.epochs().next().unwrap().unwrap();
    let checkpoint = first.checkpoint().unwrap();
    let given = options.into_iter().chain([("score_scales", "4".into())]);
    let options = TrainOptions::try_from_options(given).unwrap();
    let images = dataset(&options, 0);
    let file = finish(Trainer::resume(options, images, &checkpoint).unwrap()).model().unwrap();
    assert_eq!(file.config().score_scales(), [ScoreScale::Part(4)]);
}
