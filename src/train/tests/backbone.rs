//! Trainings on what a pretrained network sees of images.

use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, UInt8Array};
use arrow::datatypes::Field;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::backbone::{Backbone, PretrainedWeights};
use crate::calibrate::Score;
use crate::checkpoint::{Checkpoint, ModelFile};
use crate::config::BackboneChoice;
use crate::device::{Device, Precision};
use crate::image::{Image, Pixels, resample};
use crate::model::Wae;

const COUNT: usize = 60;
const SIDE: usize = 40;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/backbones").join(name)
}

fn choice(name: &str) -> BackboneChoice {
    BackboneChoice::open(&fixture(name), Device::Cpu).unwrap()
}

/// Pictures in colour, each another; those from `first` on.
fn bytes(first: usize, count: usize) -> Vec<u8> {
    let value = |n: usize, i: usize| {
        let y = i / 3 / SIDE;
        let x = i / 3 % SIDE;
        let c = i % 3;
        (128.0 + 90.0 * ((y + n) as f32 * 0.21 + c as f32).sin() * ((x * (n % 5 + 1)) as f32 * 0.07).cos()) as u8
    };
    (first..first + count).flat_map(|n| (0..SIDE * SIDE * 3).map(move |i| value(n, i))).collect()
}

fn images(first: usize, count: usize) -> Vec<Image> {
    let shape = ImageShape::new(SIDE, SIDE, 3);
    let images = bytes(first, count).chunks(shape.len()).map(|image| Pixels::U8(image.to_vec())).collect::<Vec<_>>();
    images.into_iter().map(|pixels| Image::try_new(shape, pixels).unwrap()).collect()
}

fn column(count: usize) -> ImageColumn {
    let shape = ImageShape::new(SIDE, SIDE, 3);
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let values = Arc::new(UInt8Array::from(bytes(0, count)));
    let array: ArrayRef =
        Arc::new(arrow::array::FixedSizeListArray::try_new(item, shape.len() as i32, values, None).unwrap());
    let dims = [("H", SIDE), ("W", SIDE), ("C", 3)];
    ImageColumn::try_new(&crate::image::tensor_field("image", DataType::UInt8, &dims, true), &array, None).unwrap()
}

fn options(backbone: BackboneChoice, more: &[(&str, serde_json::Value)]) -> TrainOptions {
    let mut given = std::collections::BTreeMap::from([
        ("backbone", json!(backbone.name())),
        ("epochs", json!(2)),
        ("batch_size", json!(10)),
        ("components", json!(3)),
        ("size", json!("35x42")),
    ]);
    given.extend(more.iter().cloned());
    let given = given.into_iter().filter(|(_, value)| !value.is_null());
    TrainOptions { backbone: Some(backbone), ..TrainOptions::try_from_options(given).unwrap() }
}

fn dataset(options: &TrainOptions) -> Dataset {
    let mut builder = DatasetBuilder::new(options, Limits::default(), false);
    builder.push(&column(COUNT)).unwrap();
    builder.finish().unwrap()
}

fn trained(options: &TrainOptions) -> ModelFile {
    finish(Trainer::try_new(options.clone(), dataset(options)).unwrap()).model().unwrap()
}

fn read(model: &ModelFile) -> ModelFile {
    ModelFile::from_bytes(&model.to_bytes().unwrap()).unwrap()
}

/// Anomaly scores before they are scaled, maps and costs.
fn scores(wae: &Wae, images: Vec<Image>) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let seen = wae.whitened_features(images).unwrap();
    let reconstructions = wae.decode(&wae.encode(&seen).unwrap()).unwrap();
    let largest = wae.anomalies(&seen, &reconstructions).unwrap();
    let fields = wae.anomaly_fields(&seen, &reconstructions).unwrap().values;
    (largest, fields, wae.costs(&seen, &reconstructions).unwrap())
}

#[rstest]
#[case::resnet("resnet-timm", None, "layer2+layer3", (5, 6))]
#[case::first("resnet-timm", Some("layer1"), "layer1", (9, 11))]
#[case::resnet_of_transformers("resnet-transformers-early", None, "layer2+layer3", (5, 6))]
#[case::pooled("resnet-torchvision/resnet50-0676ba61.safetensors", Some("pooled"), "pooled", (1, 1))]
#[case::vit("vit-timm", None, "tokens", (5, 6))]
#[case::block("vit-timm", Some("blocks.0"), "blocks.0", (5, 6))]
#[case::class("vit-transformers", Some("cls"), "cls", (1, 1))]
#[case::dinov2("dinov2-transformers", None, "tokens", (5, 6))]
#[case::registers("dinov2-registers-timm", None, "tokens", (5, 6))]
#[case::registers_of_transformers("dinov2-registers-transformers", None, "tokens", (5, 6))]
#[case::efficientnet("efficientnet-timm", None, "blocks.4+blocks.6", (3, 3))]
#[case::tensorflow("efficientnet-tensorflow", Some("blocks.2"), "blocks.2", (5, 6))]
#[case::lite("efficientnet-lite", Some("pooled"), "pooled", (1, 1))]
fn a_model_holds_its_network(
    #[case] name: &str,
    #[case] layer: Option<&str>,
    #[case] expected: &str,
    #[case] places: (usize, usize),
) {
    let choice = choice(name);
    let options = options(choice, &[("layer", layer.map_or(json!(null), |layer| json!(layer)))]);
    let model = trained(&options);
    let config = model.config();
    let backbone = config.backbone().unwrap();
    assert_eq!((backbone.layer.as_str(), backbone.size, backbone.embed), (expected, (35, 42), true));
    assert_eq!((config.image().height(), config.image().width()), places);
    assert_eq!(config.map_size(), (35, 42));
    assert!(config.row_input().is_none() && config.input().is_some() && config.preprocess().is_none());
    let loaded = read(&model);
    assert_eq!(loaded, model);
    assert_eq!(loaded.to_bytes().unwrap(), model.to_bytes().unwrap());
    // The network as trained with, whole, and the part of it from the file.
    let whole = Wae::try_new(&model, Device::Cpu, Precision::F32).unwrap();
    let part = Wae::try_new(&loaded, Device::Cpu, Precision::F32).unwrap();
    let together = scores(&part, images(COUNT, 20));
    assert_eq!(scores(&whole, images(COUNT, 20)), together);
    assert!(part.memory() <= whole.memory() && part.extractor().unwrap().backbone().memory() > 0);
    // Batches of any size give the same row: to the bit by the kernels, and to rounding by candle's operations, whose
    // differences the whitening enlarges.
    let tolerance = if Target::cpu().has_kernels() { 0.0 } else { 1e-3 };
    let is_near = |a: f32, b: f32| (a - b).abs() <= tolerance * b.abs().max(1.0);
    for (row, image) in images(COUNT, 20).into_iter().enumerate() {
        let (largest, field, cost) = scores(&part, vec![image]);
        assert!(is_near(largest[0], together.0[row]) && is_near(cost[0], together.2[row]), "row {row}");
        assert_eq!(field.len(), 35 * 42);
        assert_eq!(field.iter().copied().fold(f32::NEG_INFINITY, f32::max), largest[0], "the maximum stays");
    }
    assert_eq!(model.calibration().unwrap().scores(Score::AnomalyScore).unwrap().len(), 6);
}

#[test]
fn maps_are_at_the_size_of_the_images() {
    let model = trained(&options(choice("vit-timm"), &[]));
    let wae = Wae::try_new(&model, Device::Cpu, Precision::F32).unwrap();
    let seen = wae.whitened_features(images(COUNT, 2)).unwrap();
    let reconstructions = wae.decode(&wae.encode(&seen).unwrap()).unwrap();
    let fields = wae.anomaly_fields(&seen, &reconstructions).unwrap().values;
    let place = |row: usize, y: usize, x: usize| fields[(row * 35 + y) * 42 + x];
    for (y, x) in [(0, 0), (6, 6), (34, 41), (8, 20)] {
        assert_eq!(place(1, y, x), place(1, y / 7 * 7, x / 7 * 7), "a place is 7 × 7 pixels");
    }
    assert_ne!(place(1, 0, 0), place(1, 7, 0));
    let costs = wae.costs(&seen, &reconstructions).unwrap();
    let maps = wae.cost_maps(&seen, &reconstructions).unwrap();
    for (map, cost) in maps.chunks(35 * 42).zip(costs) {
        assert!((map.iter().sum::<f32>() / cost - 1.0).abs() < 1e-4, "the sum stays");
    }
    // Decoded are features, in the network's units.
    let whitening = wae.whitening().unwrap();
    assert_eq!(whitening.undo(&reconstructions).len(), 2 * model.config().source().len());
}

#[test]
fn each_image_passes_the_network_once() {
    let network = Arc::new(Backbone::open(&fixture("resnet-timm"), Device::Cpu).unwrap());
    let weights = Arc::new(PretrainedWeights::open(&fixture("resnet-timm")).unwrap());
    let choice = BackboneChoice::named("net").with_network(Arc::clone(&network)).with_weights(weights).unwrap();
    let options = options(choice, &[("epochs", json!(4))]);
    let first = trained(&options);
    assert_eq!(network.images_computed(), COUNT as u64);
    // And the same bits again; `seconds` and `created` are the clock's.
    let second = trained(&options);
    assert_eq!(first.tensors(), second.tensors());
    assert_eq!((first.calibration(), first.anomaly()), (second.calibration(), second.anomaly()));
    assert_eq!((first.config(), first.backbone()), (second.config(), second.backbone()));
}

#[test]
fn the_files_say_the_size_or_the_options_do() {
    let shape = |more: &[(&str, serde_json::Value)]| {
        let options = options(choice("resnet-timm"), more);
        let extractor = options.extractor().unwrap().unwrap();
        (extractor.size(), extractor.crop())
    };
    assert_eq!(shape(&[("size", json!(null))]), ((35, 35), None));
    assert_eq!(shape(&[("size", json!(64))]), ((64, 64), None));
    assert_eq!(shape(&[("size", json!(64)), ("crop", json!(30))]), ((64, 64), Some((30, 30))));
    assert_eq!(shape(&[("size", json!(null)), ("crop", json!(30))]), ((30, 30), Some((30, 30))));
    let without = options(choice("resnet-torchvision/resnet50-0676ba61.safetensors"), &[("size", json!(null))]);
    let error = without.config(ImageShape::new(SIDE, SIDE, 3)).unwrap_err().to_string();
    assert!(error.contains("come without the size of images, expected the option size"), "{error}");
    let error = options(choice("vit-timm"), &[("size", json!(36))]).extractor().unwrap_err().to_string();
    assert!(error.starts_with("backbone 'vit-timm': images of 36 × 36 are no whole patches"), "{error}");
    let error = options(choice("vit-timm"), &[("layer", json!("layer2"))]).extractor().unwrap_err().to_string();
    assert!(error.contains("there is no layer 'layer2', expected one or several"), "{error}");
}

/// The whole image is resized as Pillow does it: what is resized before gives the same features.
#[test]
fn the_whole_image_is_resized() {
    let whole = options(choice("resnet-timm"), &[]);
    let extractor = whole.extractor().unwrap().unwrap();
    let resized = |image: &Image| resample(image, 35, 42, crate::image::Filter::Bicubic).unwrap();
    let expected = extractor.features(images(0, 3).iter().map(resized).collect()).unwrap();
    assert_eq!(extractor.features(images(0, 3)).unwrap(), expected);
}

#[test]
fn weights_that_are_not_in_the_file() {
    let choice = choice("dinov2-registers-timm");
    let sha256 = choice.sha256().unwrap().to_owned();
    let model = trained(&options(choice, &[("embed", json!(false))]));
    let embedded = trained(&options(self::choice("dinov2-registers-timm"), &[]));
    assert!(model.to_bytes().unwrap().len() + 10_000 < embedded.to_bytes().unwrap().len());
    let loaded = read(&model);
    let blind = Wae::try_new(&loaded, Device::Cpu, Precision::F32).unwrap();
    let error = blind.whitened_features(images(0, 1)).unwrap_err().to_string();
    assert!(error.contains(&sha256) && error.contains("'dinov2-registers-timm'"), "{error}");
    let open = |name: &str| Arc::new(Backbone::open(&fixture(name), Device::Cpu).unwrap());
    let seeing = loaded.clone().with_backbone(open("dinov2-registers-timm")).unwrap();
    let seeing = Wae::try_new(&seeing, Device::Cpu, Precision::F32).unwrap();
    let expected = Wae::try_new(&embedded, Device::Cpu, Precision::F32).unwrap();
    assert_eq!(scores(&seeing, images(COUNT, 3)), scores(&expected, images(COUNT, 3)));
    let other = open("vit-timm");
    let error = loaded.with_backbone(Arc::clone(&other)).unwrap_err().to_string();
    assert!(error.contains(&sha256) && error.contains(other.sha256()), "{error}");
    let plain = ModelFile::from_bytes(include_bytes!("../../../fixtures/golden/golden.model.safetensors")).unwrap();
    let error = plain.clone().with_backbone(other).unwrap_err().to_string();
    assert_eq!(error, "the model is not of features of a pretrained network");
    let error = Wae::try_new(&plain, Device::Cpu, Precision::F32).unwrap().whitened_features(Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "the model sees images by no pretrained network");
}

#[test]
fn a_training_goes_on_with_the_same_network_only() {
    let options = options(choice("resnet-timm"), &[]);
    let whole = finish(Trainer::try_new(options.clone(), dataset(&options)).unwrap());
    let mut first = Trainer::try_new(options.clone(), dataset(&options)).unwrap();
    first.epochs().next().unwrap().unwrap();
    let checkpoint = Checkpoint::from_bytes(&first.checkpoint().unwrap().to_bytes().unwrap()).unwrap();
    checkpoint.info().check_options(&options).unwrap();
    let resumed = finish(Trainer::resume(options.clone(), dataset(&options), &checkpoint).unwrap());
    assert_eq!(resumed.network.tensors().unwrap(), whole.network.tensors().unwrap());
    let error = |more: &[(&str, serde_json::Value)], name: &str| {
        let other = self::options(choice(name), more);
        checkpoint.info().check_options(&other).unwrap_err().to_string()
    };
    let layer = error(&[("layer", json!("layer1"))], "resnet-timm");
    assert!(layer.ends_with("layer was 'layer2+layer3', is 'layer1'"), "{layer}");
    let size = error(&[("size", json!(64))], "resnet-timm");
    assert!(size.contains("size was [35,42], is [64,64]"), "{size}");
    assert!(error(&[], "resnet-transformers").contains("backbone was '"));
    let none = TrainOptions { backbone: None, layer: None, preprocess: None, components: None, ..options.clone() };
    let none = checkpoint.info().check_options(&none).unwrap_err().to_string();
    assert!(none.contains("backbone was '") && none.contains("is none"), "{none}");

    let model = whole.model().unwrap();
    let other = TrainOptions { seed: 5, init: Some("m".to_owned()), ..options };
    Trainer::from_model(other.clone(), dataset(&other), &model).unwrap();
    let layer = TrainOptions { layer: Some("layer2".to_owned()), ..other };
    let error = Trainer::from_model(layer.clone(), dataset(&layer), &model).unwrap_err().to_string();
    assert_eq!(error, "it has layer layer2+layer3, expected layer2 as the options say");
}

#[test]
fn trainings_that_cannot_begin() {
    let network = Arc::new(Backbone::open(&fixture("resnet-timm"), Device::Cpu).unwrap());
    let without = options(BackboneChoice::named("net").with_network(network), &[]);
    let error = Trainer::try_new(without.clone(), dataset(&without)).unwrap_err().to_string();
    assert_eq!(error, "option 'embed' is true, expected the weights beside the network");
    let named = options(BackboneChoice::named("net"), &[]);
    let mut builder = DatasetBuilder::new(&named, Limits::default(), false);
    let error = builder.push(&column(1)).unwrap_err().to_string();
    assert_eq!(error, "option 'backbone' is 'net', which has not been read: see BackboneChoice::open and with_network");
    let options = options(choice("resnet-timm"), &[]);
    let collected = dataset(&options);
    let other = TrainOptions { layer: Some("layer1".to_owned()), ..options.clone() };
    let error = Trainer::try_new(other, collected).unwrap_err().to_string();
    assert!(error.contains("the images were collected under another seed"), "{error}");
    let weights = Arc::new(PretrainedWeights::open(&fixture("vit-timm")).unwrap());
    let error = options.backbone.unwrap().with_weights(weights).unwrap_err().to_string();
    assert!(error.starts_with("the network of backbone 'resnet-timm' has the sha256 "), "{error}");
}

#[test]
fn images_that_the_network_does_not_take() {
    let grey = ImageShape::new(8, 8, 1);
    let (field, array) = grey_images(3, grey);
    let column = ImageColumn::try_new(&field, &array, Some(grey)).unwrap();
    let options = options(choice("resnet-timm"), &[]);
    let mut builder = DatasetBuilder::new(&options, Limits::default(), false);
    let error = builder.push(&column).unwrap_err().to_string();
    assert_eq!(error, "row 0: the image has 1 channels, expected red, green and blue");
    let mut builder = DatasetBuilder::new(&options, Limits::default(), true);
    builder.push(&column).unwrap();
    builder.push(&self::column(5)).unwrap();
    assert_eq!((builder.skipped(), builder.images_seen()), (3, 5));
    assert_eq!(builder.finish().unwrap().training_rows(), 4);
    let small =
        TrainOptions { preprocess: Some(crate::image::Preprocess::try_new(Some((41, 41)), None).unwrap()), ..options };
    let error = DatasetBuilder::new(&small, Limits::default(), false).push(&self::column(2)).unwrap_err().to_string();
    assert_eq!(error, "row 0: the image has 40 × 40 pixels, too few for a crop of 41 × 41");
}

fn grey_images(count: usize, shape: ImageShape) -> (Field, ArrayRef) {
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let values = Arc::new(UInt8Array::from(vec![7; count * shape.len()]));
    let array: ArrayRef =
        Arc::new(arrow::array::FixedSizeListArray::try_new(item, shape.len() as i32, values, None).unwrap());
    (Field::new("image", array.data_type().clone(), true), array)
}

#[test]
fn memory_counts_the_network() {
    let options = options(choice("resnet-timm"), &[]);
    let shape = options.source(ImageShape::new(SIDE, SIDE, 3)).unwrap();
    let features = TrainOptions { backbone: None, input: crate::config::InputChoice::Features, ..options.clone() };
    let features = TrainOptions { preprocess: None, ..features };
    let network = options.backbone.as_ref().unwrap().memory();
    assert!(network > 50_000, "{network}");
    let more = options.memory_of_preprocessed(shape).unwrap();
    assert!(more >= features.memory_of_preprocessed(shape).unwrap() + network);
    assert_eq!(options.memory(ImageShape::new(SIDE, SIDE, 3)).unwrap(), more);
}

/// A header with its tensors behind it, edited; the tensors stay where they are.
fn edited(bytes: &[u8], edit: impl FnOnce(&mut serde_json::Value)) -> String {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    edit(&mut header);
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    let bytes = [&(text.len() as u64).to_le_bytes(), text.as_slice(), &bytes[8 + len..]].concat();
    ModelFile::from_bytes(&bytes).unwrap_err().to_string()
}

fn edited_config(bytes: &[u8], edit: impl FnOnce(&mut serde_json::Value)) -> String {
    edited(bytes, |header| {
        let mut config = serde_json::from_str(header["__metadata__"]["config"].as_str().unwrap()).unwrap();
        edit(&mut config);
        header["__metadata__"]["config"] = config.to_string().into();
    })
}

#[test]
fn lying_networks_are_refused() {
    let bytes = trained(&options(choice("vit-timm"), &[("layer", json!("blocks.0"))])).to_bytes().unwrap();
    let renamed = |from: &'static str, to: &'static str| {
        edited(&bytes, move |header| {
            let tensor = header.as_object_mut().unwrap().remove(from).unwrap();
            header[to] = tensor;
        })
    };
    let error = renamed("backbone.blocks.0.norm1.weight", "backbone.evil");
    assert_eq!(error, "tensor 'backbone.blocks.0.norm1.weight' is missing in 'backbone'");
    let error = renamed("backbone.blocks.0.attn.qkv.bias", "backbone.evil");
    assert!(error.starts_with("weights 'backbone': tensor 'evil' is none of a ViT"), "{error}");
    let error = renamed("backbone.cls_token", "evil");
    assert_eq!(error, "unknown tensor 'evil' of shape [1, 1, 8]".replace("8]", &format!("{}]", width(&bytes))));
    let error = edited(&bytes, |h| h["backbone.cls_token"]["shape"] = json!([width(&bytes)]));
    assert!(error.starts_with("tensor 'backbone.cls_token' has shape ["), "{error}");
    let error = edited(&bytes, |h| {
        let tensor = &mut h["backbone.cls_token"];
        tensor["dtype"] = if tensor["dtype"] == "F32" { "I32".into() } else { "I16".into() };
    });
    assert!(
        error.starts_with("tensor 'backbone.cls_token' is I") && error.ends_with("expected F32, BF16 or F16"),
        "{error}"
    );
    let error = edited(&bytes, |h| h["backbone.cls_token"]["shape"] = json!([1_u64 << 40, 1, 1]));
    assert!(error.starts_with("not a safetensors file"), "{error}");
    let cases: [(&str, serde_json::Value, &str); 16] = [
        ("/backbone/embed", json!(false), "unknown tensor 'backbone."),
        ("/backbone/layer", json!("blocks.1"), "there is no layer 'blocks.1'"),
        ("/backbone/layer", json!("tokens"), "there is no layer 'tokens'"),
        ("/backbone/layer", json!(""), "has a layer of 0 bytes"),
        ("/backbone/size", json!([36, 42]), "no whole patches of 7 × 7"),
        ("/backbone/size", json!([1_u64 << 40, 42]), "the height of size must be between 1 and 4096"),
        ("/backbone/size", json!([70, 84]), "gives features of shape [10, 12,"),
        ("/backbone/size", json!([4, 4]), "a backbone gives maps of shape [5, 6, 3] of images of 4 × 4"),
        ("/backbone/crop", json!([0, 42]), "the height of crop must be between 1 and 4096"),
        ("/backbone/sha256", json!("00"), "a sha256 that is not 64 hexadecimal digits"),
        ("/backbone/architecture/heads", json!(1_u64 << 40), "heads, expected 1 to 1024"),
        ("/backbone/architecture/heads", json!(0), "a backbone has 0 heads, expected 1 to 1024"),
        ("/backbone/architecture/epsilon", json!(2.0), "a backbone has epsilon 2, expected a number between 0 and 1"),
        (
            "/backbone/architecture",
            json!({"family": "resnet", "strides_first": false}),
            "tensor 'backbone.conv1.weight'",
        ),
        ("/backbone/preprocessing/deviation", json!([0.0, 1.0, 1.0]), "expected finite numbers, deviations above 0"),
        ("/backbone/preprocessing/eval", json!("import os"), "unknown field `eval`"),
    ];
    for (place, value, expected) in cases {
        let (parent, key) = place.rsplit_once('/').unwrap();
        let error = edited_config(&bytes, |config| config.pointer_mut(parent).unwrap()[key] = value);
        assert!(error.contains(expected), "{place}: {error}");
    }
    let error = edited_config(&bytes, |config| drop(config.as_object_mut().unwrap().remove("input")));
    assert!(error.contains("a backbone goes with input 'features' only"), "{error}");
    let error = edited_config(&bytes, |config| drop(config.as_object_mut().unwrap().remove("backbone")));
    assert!(error.starts_with("unknown tensor 'backbone."), "{error}");
}

/// More of the network than the layer needs is no part of the model.
#[test]
fn surplus_tensors_are_refused() {
    let bytes = trained(&options(choice("resnet-timm"), &[("layer", json!("layer3"))])).to_bytes().unwrap();
    let error = edited_config(&bytes, |config| config["backbone"]["layer"] = "layer2".into());
    assert!(error.contains("gives features of shape ["), "{error}");
    let same_shape = trained(&options(choice("vit-timm"), &[("layer", json!("blocks.1"))])).to_bytes().unwrap();
    let error = edited_config(&same_shape, |config| config["backbone"]["layer"] = "blocks.0".into());
    assert!(
        error.starts_with("tensor 'backbone.blocks.1.") && error.contains("has no part in layer 'blocks.0'"),
        "{error}"
    );
}

fn width(bytes: &[u8]) -> usize {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    header["backbone.cls_token"]["shape"][2].as_u64().unwrap() as usize
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let bytes = trained(&options(choice("resnet-timm"), &[("layer", json!("layer1"))])).to_bytes().unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let at = 8 + len + header["backbone.conv1.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut spoiled = bytes.clone();
    spoiled[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = ModelFile::from_bytes(&spoiled).unwrap_err().to_string();
    assert_eq!(error, "tensor 'backbone.conv1.weight' has the value NaN, expected finite numbers");
}

/// Weights of 16 bits stay so in the file.
#[test]
fn tensors_keep_their_type() {
    let source = std::fs::read(fixture("resnet-timm/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&source).unwrap();
    let halves: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, view)| {
            let values = crate::checkpoint::tensor_values(name, &view).unwrap();
            let bytes = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
            (name.to_owned(), view.shape().to_vec(), bytes)
        })
        .collect();
    let views = halves.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F16, shape.clone(), bytes).unwrap())
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    std::fs::copy(fixture("resnet-timm/config.json"), dir.path().join("config.json")).unwrap();
    let choice = BackboneChoice::open(dir.path(), Device::Cpu).unwrap();
    let model = trained(&options(choice, &[]));
    let bytes = model.to_bytes().unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    assert_eq!(header["backbone.layer1.0.conv1.weight"]["dtype"], "F16");
    assert!(header.get("backbone.layer4.0.conv1.weight").is_none() && header.get("backbone.fc.weight").is_none());
    let wae = |file: &ModelFile| Wae::try_new(file, Device::Cpu, Precision::F32).unwrap();
    assert_eq!(scores(&wae(&model), images(3, 2)), scores(&wae(&read(&model)), images(3, 2)));
}

/// Bytes of the header changed at random: a model that sees images, or an error, never a panic.
#[rstest]
#[case("resnet-timm", 35)]
#[case("dinov2-registers-timm", 42)]
#[case("efficientnet-lite", 35)]
fn damaged_headers_are_errors(#[case] name: &str, #[case] side: usize) {
    use rand::{RngExt, SeedableRng};
    let model = trained(&options(choice(name), &[("epochs", json!(1)), ("size", json!(side))])).to_bytes().unwrap();
    let header = 8 + u64::from_le_bytes(*model.first_chunk().unwrap()) as usize;
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut refused = 0;
    for _ in 0..100 {
        let mut bytes = model.clone();
        for _ in 0..generator.random_range(1..3) {
            let at = generator.random_range(8..header);
            bytes[at] = b"0123456789[]{}:,abw"[generator.random_range(0..19)];
        }
        let Ok(file) = ModelFile::from_bytes(&bytes) else {
            refused += 1;
            continue;
        };
        let Ok(wae) = Wae::try_new(&file, Device::Cpu, Precision::F32) else { continue };
        if let Ok(seen) = wae.whitened_features(images(0, 1)) {
            assert_eq!(seen.len(), file.config().image().len());
        }
    }
    assert!(refused > 50, "{refused}");
}
