//! Checkpoints in memory, whole and hostile.

use std::collections::BTreeMap;

use half::{bf16, f16};
use rstest::rstest;
use serde_json::json;

use super::*;

/// A safetensors file with this header, and these bytes of values.
fn safetensors(header: &serde_json::Value, values: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat()
}

/// A file with one f32 tensor of two values for each name.
fn pairs(names: &[&str]) -> Vec<u8> {
    let entry = |(i, name): (usize, &&str)| {
        ((*name).to_owned(), json!({"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]}))
    };
    let header: serde_json::Map<_, _> = names.iter().enumerate().map(entry).collect();
    let values: Vec<u8> = (0..2 * names.len()).flat_map(|i| (i as f32).to_le_bytes()).collect();
    safetensors(&header.into(), &values)
}

fn files(files: Vec<(&str, Vec<u8>)>) -> WeightFiles<'static> {
    let files: BTreeMap<String, Vec<u8>> = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    let sizes = files.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    WeightFiles::new("net", sizes, None, move |name| Ok(files[name].clone()))
}

fn single(bytes: Vec<u8>) -> Result<PretrainedWeights> {
    PretrainedWeights::read(&files(vec![("model.safetensors", bytes)]))
}

#[test]
fn every_float_type_is_read() {
    let header = json!({
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F16", "shape": [1, 2], "data_offsets": [8, 12]},
        "c": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [12, 16]},
        "bn.num_batches_tracked": {"dtype": "I64", "shape": [], "data_offsets": [16, 24]},
    });
    let mut values: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    values.extend([0.5, 3.0].iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()));
    values.extend([-1.0, 8.0].iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
    values.extend([0; 8]);
    let weights = single(safetensors(&header, &values)).unwrap();
    let parameters = weights.parameters();
    assert_eq!(parameters.take("a", &[2]).unwrap(), [1.5, -2.0]);
    assert_eq!(parameters.take("b", &[1, 2]).unwrap(), [0.5, 3.0]);
    let error = parameters.finish("a ResNet", &[]).unwrap_err().to_string();
    assert!(error.starts_with("weights 'net': tensor 'c' is none of a ResNet; "), "{error}");
    assert_eq!(parameters.take_if_there("c", &[2, 1]).unwrap().unwrap(), [-1.0, 8.0]);
    parameters.finish("a ResNet", &[]).unwrap();
    assert!(parameters.take_if_there("d", &[2]).unwrap().is_none());
    assert_eq!(parameters.take("d", &[2]).unwrap_err().to_string(), "tensor 'd' is missing in 'net'");
    let error = parameters.take("a", &[1, 2]).unwrap_err().to_string();
    assert_eq!(error, "tensor 'a' has shape [2], expected [1, 2]");
}

#[test]
fn tensors_of_another_type_are_refused_where_they_are_taken() {
    let header = json!({"a": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}});
    let weights = single(safetensors(&header, &[0; 8])).unwrap();
    let error = weights.parameters().take("a", &[8]).unwrap_err().to_string();
    assert_eq!(error, "tensor 'a' is I8, expected F32, F16 or BF16");
    let header = json!({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}});
    let weights = single(safetensors(&header, &f32::INFINITY.to_le_bytes())).unwrap();
    let error = weights.parameters().take("a", &[1]).unwrap_err().to_string();
    assert_eq!(error, "tensor 'a' has the value inf, expected finite numbers");
}

#[rstest]
#[case::larger_than_its_bytes(json!({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}))]
#[case::a_trillion(json!({"a": {"dtype": "F32", "shape": [1_000_000, 1_000_000], "data_offsets": [0, 8]}}))]
#[case::overflow(json!({"a": {"dtype": "F32", "shape": [u64::MAX, 2], "data_offsets": [0, 8]}}))]
#[case::beyond_the_file(json!({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}))]
#[case::backwards(json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}))]
#[case::overlapping(json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}))]
#[case::unknown_type(json!({"a": {"dtype": "F12", "shape": [2], "data_offsets": [0, 8]}}))]
fn lying_headers(#[case] header: serde_json::Value) {
    let error = single(safetensors(&header, &[0; 8])).unwrap_err().to_string();
    assert!(error.contains("model.safetensors is damaged, or not a safetensors file"), "{error}");
}

#[rstest]
#[case::empty(b"", "is in another format")]
#[case::text(b"Lorem ipsum dolor sit amet", "is in another format, expected safetensors")]
#[case::zip(b"PK\x03\x04aaaaaaaaaaaa", "is a zip archive, as torch.save writes")]
#[case::pickle(b"\x80\x02}q\x00(X\x05\x00\x00\x00", "is a Python pickle")]
#[case::onnx(b"\x08\x08\x12\x07pytorch\x1a", "is ONNX")]
#[case::hdf(b"\x89HDF\r\n\x1a\n\x00\x00", "is HDF5")]
#[case::pointer(b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS")]
#[case::long_header(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "expected at most 67108864")]
#[case::short(b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "is damaged")]
fn other_formats_under_the_name_of_safetensors(#[case] bytes: &[u8], #[case] expected: &str) {
    let error = single(bytes.to_vec()).unwrap_err().to_string();
    assert!(error.starts_with("weights 'net': ") && error.contains(expected), "{error}");
}

/// Shards, and where the index says that tensors `a` and `b` are.
fn sharded(a: &str, b: &str) -> Result<PretrainedWeights> {
    let index = json!({"weight_map": {"a": a, "b": b}}).to_string().into_bytes();
    PretrainedWeights::read(&files(vec![
        ("model.safetensors.index.json", index),
        ("1.safetensors", pairs(&["a"])),
        ("2.safetensors", pairs(&["b", "c"])),
        ("3.safetensors", pairs(&["b"])),
    ]))
}

#[test]
fn shards_hold_what_the_index_says() {
    let weights = sharded("1.safetensors", "3.safetensors").unwrap();
    assert!(weights.has("a") && weights.has("b"));
    let error = sharded("1.safetensors", "2.safetensors").unwrap_err().to_string();
    assert_eq!(error, "weights 'net': the index does not say that tensor 'c' is in 2.safetensors");
    let error = sharded("3.safetensors", "3.safetensors").unwrap_err().to_string();
    assert_eq!(error, "weights 'net': 3.safetensors has no tensor 'a', which the index names");
    assert!(sharded("4.safetensors", "3.safetensors").is_err());
}

#[test]
fn two_tensors_of_one_name() {
    let error = single(pairs(&["conv1.weight", "model.conv1.weight"])).unwrap_err().to_string();
    assert!(error.contains("has a second tensor 'conv1.weight'"), "{error}");
}

#[test]
fn names_and_counts() {
    let weights = single(pairs(&["vit.encoder.layer.0.norm1.weight", "vit.encoder.layer.1.norm1.weight"])).unwrap();
    assert_eq!(weights.naming(), Naming::HuggingFace);
    assert_eq!(weights.first_names(), ["blocks.0.norm1.weight", "blocks.1.norm1.weight"]);
    assert_eq!((weights.count("blocks."), weights.count("layer")), (2, 0));
    assert_eq!(weights.shape("blocks.1.norm1.weight").unwrap(), [2]);
    assert_eq!(single(pairs(&["conv1.weight"])).unwrap().naming(), Naming::Timm);
}

/// `printf '%s  config.json\n%s  model.safetensors\n' ... | sha256sum`.
#[test]
fn the_digest_is_that_of_the_lines_of_sha256sum() {
    let model = pairs(&["a"]);
    let both = |config: &str| {
        let files =
            files(vec![("model.safetensors", model.clone()), ("config.json", config.into()), ("x.txt", vec![])]);
        PretrainedWeights::read(&files).unwrap().sha256().to_owned()
    };
    let lines = format!("{}  config.json\n{}  model.safetensors\n", hex(b"{}"), hex(&model));
    assert_eq!(both("{}"), hex(lines.as_bytes()));
    assert_eq!(hex(b"{}"), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_ne!(both("{}"), both("{ }"), "the configuration is a part of it");
    let broken = files(vec![("model.safetensors", model.clone()), ("config.json", b"[".to_vec())]);
    assert!(PretrainedWeights::read(&broken).unwrap_err().to_string().contains("config.json is no JSON"));
}
