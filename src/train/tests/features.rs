//! Trainings on features: vectors and maps of floats of any range.

use arrow::array::{ArrayRef, FixedSizeListArray};
use arrow::datatypes::{Field, Float32Type};
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::calibrate::Score;
use crate::checkpoint::{Checkpoint, ModelFile};
use crate::config::{Network, Prior};
use crate::device::{Device, Precision};
use crate::image::tensor_field;
use crate::model::Wae;
use crate::objective::sample;

/// Rows of features of a shape, which follow four hidden numbers; each channel has a mean and a scale of its own.
fn rows(count: usize, shape: ImageShape, seed: u64) -> Vec<f32> {
    let hidden = sample(Prior::default(), count, 4, seed);
    let value = |h: &[f32], i: usize| {
        let channel = (i % shape.channels()) as f32;
        let place = (i / shape.channels()) as f32;
        100.0 * channel + (1.0 + channel) * (h[i % 4] + 0.5 * h[(i + 1) % 4] + 0.3 * (place + h[2]).sin())
    };
    hidden.chunks_exact(4).flat_map(|h| (0..shape.len()).map(move |i| value(h, i)).collect::<Vec<_>>()).collect()
}

fn column(values: &[f32], shape: ImageShape) -> ImageColumn {
    let rows = values.chunks(shape.len()).map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>()));
    let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, shape.len() as i32);
    let array: ArrayRef = Arc::new(lists);
    let field = match shape.height() * shape.width() {
        1 => Field::new("x", arrow::array::Array::data_type(&array).clone(), true),
        _ => {
            let dims = [("H", shape.height()), ("W", shape.width()), ("C", shape.channels())];
            tensor_field("x", DataType::Float32, &dims, true)
        }
    };
    ImageColumn::of_features(&field, &array, None).unwrap()
}

fn options(more: &[(&str, serde_json::Value)]) -> TrainOptions {
    let mut given = std::collections::BTreeMap::from([
        ("input", json!("features")),
        ("epochs", json!(2)),
        ("batch_size", json!(20)),
    ]);
    given.extend(more.iter().cloned());
    TrainOptions::try_from_options(given).unwrap()
}

fn dataset_of(options: &TrainOptions, shape: ImageShape) -> Dataset {
    let mut builder = DatasetBuilder::new(options, Limits::default(), false);
    builder.push(&column(&rows(200, shape, 1), shape)).unwrap();
    builder.finish().unwrap()
}

#[rstest]
#[case::one((1, 1, 1), 1)]
#[case::vector((1, 1, 6), 4)]
#[case::small_map((4, 4, 3), 3)]
#[case::map((8, 8, 3), 3)]
#[case::oblong((9, 12, 2), 2)]
fn vectors_and_maps_train(#[case] (h, w, c): (usize, usize, usize), #[case] components: usize) {
    let shape = ImageShape::new(h, w, c);
    let options = options(&[]);
    let trainer = finish(Trainer::try_new(options.clone(), dataset_of(&options, shape)).unwrap());
    let dense = matches!(trainer.config().network(), Network::Dense(_));
    assert_eq!((trainer.config().source(), trainer.config().image().channels()), (shape, components));
    assert_eq!(dense, h.min(w) < 8);
    let model = trainer.model().unwrap();
    let read = ModelFile::from_bytes(&model.to_bytes().unwrap()).unwrap();
    assert_eq!(read, model);
    let wae = Wae::try_new(&read, Device::Cpu, Precision::F32).unwrap();
    let whitening = wae.whitening().unwrap();
    let whitened = whitening.apply(&rows(5, shape, 2));
    let reconstructions = wae.decode(&wae.encode(&whitened).unwrap()).unwrap();
    assert_eq!(whitening.undo(&reconstructions).len(), 5 * shape.len());
    assert!(wae.costs(&whitened, &reconstructions).unwrap().iter().all(|cost| cost.is_finite()));
    assert_eq!(model.calibration().unwrap().scores(Score::Cost).unwrap().len(), 20);
}

/// Sixteen channels of four hidden numbers: the mean as a reconstruction costs 4 a row, one for each direction that
/// varies; four values of a code keep most of it.
#[test]
fn a_code_keeps_what_varies_together() {
    let shape = ImageShape::new(1, 1, 16);
    let options = options(&[("epochs", json!(40)), ("latent_dim", json!(4)), ("network", json!("dense:64,32"))]);
    let dataset = dataset_of(&options, shape);
    let directions = dataset.shape().channels() as f64;
    let trainer = finish(Trainer::try_new(options, dataset).unwrap());
    let history = trainer.history();
    let last = history.last().and_then(|report| report.holdout_reconstruction_cost).unwrap();
    assert!(last < 0.5 * directions, "{last} of {directions}");
}

/// Whitened by the training rows alone: held-out ones, which are others under another seed, have no part.
#[test]
fn held_out_rows_have_no_part_in_the_whitening() {
    let shape = ImageShape::new(1, 1, 3);
    let options = options(&[]);
    let dataset = dataset_of(&options, shape);
    let training = dataset.training(&(0..dataset.training_rows()).collect::<Vec<_>>()).unwrap();
    let column = |j: usize| training.iter().skip(j).step_by(3).map(|v| f64::from(*v)).collect::<Vec<_>>();
    let n = dataset.training_rows() as f64;
    for j in 0..3 {
        assert!((column(j).iter().sum::<f64>() / n).abs() < 1e-4);
        assert!((column(j).iter().map(|v| v * v).sum::<f64>() / (n - 1.0) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn a_training_goes_on_and_another_begins_from_it() {
    let shape = ImageShape::new(1, 1, 6);
    let options = options(&[]);
    let whole = finish(Trainer::try_new(options.clone(), dataset_of(&options, shape)).unwrap());
    let mut first = Trainer::try_new(options.clone(), dataset_of(&options, shape)).unwrap();
    first.epochs().next().unwrap().unwrap();
    let bytes = first.checkpoint().unwrap().to_bytes().unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    checkpoint.info().check_options(&options).unwrap();
    let resumed = finish(Trainer::resume(options.clone(), dataset_of(&options, shape), &checkpoint).unwrap());
    assert_eq!(resumed.network.tensors().unwrap(), whole.network.tensors().unwrap());

    let model = whole.model().unwrap();
    let other = TrainOptions { seed: 5, init: Some("m".to_owned()), ..options };
    let mut trainer = Trainer::from_model(other.clone(), dataset_of(&other, shape), &model).unwrap();
    assert_eq!(trainer.dataset.whitening(), model.whitening(), "the weights are made for it");
    trainer.epochs().next().unwrap().unwrap();
    let fewer = TrainOptions { components: Some(2), ..other };
    let error = Trainer::from_model(fewer.clone(), dataset_of(&fewer, shape), &model).unwrap_err().to_string();
    assert!(error.contains("components"), "{error}");
}

/// One tensor of the whitening spoiled at a time.
#[test]
fn a_model_file_with_a_broken_whitening_is_refused() {
    let shape = ImageShape::new(1, 1, 3);
    let options = options(&[("epochs", json!(1))]);
    let model = finish(Trainer::try_new(options.clone(), dataset_of(&options, shape)).unwrap()).model().unwrap();
    let bytes = model.to_bytes().unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    assert_eq!(header["__metadata__"]["format"], "wae/2");
    let spoil = |tensor: &str, value: f32| {
        let at = 8 + len + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        ModelFile::from_bytes(&bytes).unwrap_err().to_string()
    };
    for value in [f32::NAN, f32::INFINITY] {
        for tensor in ["input.mean", "input.projection", "input.deviation"] {
            assert!(spoil(tensor, value).contains("expected finite numbers"));
        }
    }
    assert!(spoil("input.deviation", 0.0).contains("expected numbers above 0"));
    assert!(spoil("input.deviation", -1.0).contains("expected numbers above 0"));
    assert!(spoil("input.deviation", 1e-45).contains("does not fit into 32 bits"));
    let with_header = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut header = header.clone();
        edit(&mut header);
        let mut text = serde_json::to_vec(&header).unwrap();
        text.resize(text.len().next_multiple_of(8), b' ');
        let bytes = [&(text.len() as u64).to_le_bytes(), text.as_slice(), &bytes[8 + len..]].concat();
        ModelFile::from_bytes(&bytes).unwrap_err().to_string()
    };
    let error = with_header(&|h| h["input.projection"]["shape"] = json!([9]));
    assert_eq!(error, "tensor 'input.projection' has shape [9], expected [3, 3]");
    let error = with_header(&|h| {
        let tensor = h.as_object_mut().unwrap().remove("input.mean").unwrap();
        h["input.median"] = tensor;
    });
    assert_eq!(error, "unknown tensor 'input.median' of shape [3]");
    let edit_config = |input: serde_json::Value| {
        with_header(&|h| {
            let mut config: serde_json::Value =
                serde_json::from_str(h["__metadata__"]["config"].as_str().unwrap()).unwrap();
            config["input"] = input.clone();
            h["__metadata__"]["config"] = config.to_string().into();
        })
    };
    let huge = edit_config(json!({"kind": "features", "channels": 1_u64 << 40}));
    assert!(huge.contains("the channels of features must be between 1 and 4096"), "{huge}");
    let wider = edit_config(json!({"kind": "features", "channels": 4}));
    assert_eq!(wider, "tensor 'input.mean' has shape [3], expected [4]");
    assert!(edit_config(json!({"kind": "sound", "channels": 3})).contains("'config' is unreadable"));
}

#[test]
fn images_are_not_taken_for_features() {
    let options = options(&[]);
    let mut builder = DatasetBuilder::new(&options, Limits::default(), false);
    let field = Field::new("x", DataType::List(Arc::new(Field::new("item", DataType::UInt8, true))), true);
    let error = ImageColumn::of_features(&field, &arrow::array::new_null_array(field.data_type(), 1), None);
    assert!(error.unwrap_err().to_string().contains("expected features"), "integers");
    let shape = ImageShape::new(1, 1, 3);
    builder.push(&column(&rows(3, shape, 1), shape)).unwrap();
    let other = ImageShape::new(1, 1, 1);
    let error = builder.push(&column(&rows(1, other, 1), other)).unwrap_err().to_string();
    assert!(error.contains("features have shape [1, 1, 1], those before them [1, 1, 3]"), "{error}");
    let mut images = DatasetBuilder::new(&TrainOptions::default(), Limits::default(), false);
    let error = images.push(&column(&rows(3, shape, 1), shape)).unwrap_err().to_string();
    assert_eq!(error, "the column was read as features, expected images as the options say");
}
