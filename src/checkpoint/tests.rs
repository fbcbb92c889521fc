//! The golden model file, spoiled in one way at a time.

use rstest::rstest;

use super::format::MAX_HEADER_BYTES;
use super::*;
use crate::config::{Parts, ScoreScale};

const GOLDEN: &[u8] = include_bytes!("../../fixtures/golden/golden.model.safetensors");

/// The golden file with its header edited.
fn with_header(edit: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let len = u64::from_le_bytes(GOLDEN[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&GOLDEN[8..8 + len]).unwrap();
    edit(&mut header);
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice(), &GOLDEN[8 + len..]].concat()
}

fn edit_config(header: &mut serde_json::Value, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut config = serde_json::from_str(header["__metadata__"]["config"].as_str().unwrap()).unwrap();
    edit(&mut config);
    header["__metadata__"]["config"] = config.to_string().into();
}

#[rstest]
#[case::format(|h: &mut serde_json::Value| h["__metadata__"]["format"] = "wae/3".into(), "format is 'wae/3', expected 'wae/1' or 'wae/2'")]
#[case::old_format(|h: &mut serde_json::Value| edit_config(h, |c| c["score_scales"] = serde_json::json!([8])), "the configuration takes format 'wae/2'")]
#[case::no_statistics(|h: &mut serde_json::Value| { h["__metadata__"]["format"] = "wae/2".into(); edit_config(h, |c| c["score_scales"] = serde_json::json!([8])) }, "tensor 'score.levels' is missing")]
#[case::no_metadata(|h: &mut serde_json::Value| { h.as_object_mut().unwrap().remove("__metadata__"); }, "names no format")]
#[case::no_config(|h: &mut serde_json::Value| { h["__metadata__"].as_object_mut().unwrap().remove("config"); }, "has no 'config'")]
#[case::config(|h: &mut serde_json::Value| h["__metadata__"]["config"] = "{".into(), "'config' is unreadable")]
#[case::huge(|h: &mut serde_json::Value| edit_config(h, |c| c["latent_dim"] = 1_000_000_000.into()), "latent_dim must be between 1 and 4096")]
#[case::lying(|h: &mut serde_json::Value| edit_config(h, |c| c["latent_dim"] = 5.into()), "tensor 'decoder.stem.weight' has shape [280, 4], expected [280, 5]")]
#[case::unknown_key(|h: &mut serde_json::Value| edit_config(h, |c| c["eval"] = "import os".into()), "unknown field `eval`")]
#[case::renamed(|h: &mut serde_json::Value| { let t = h.as_object_mut().unwrap().remove("decoder.out.conv.bias").unwrap(); h["evil"] = t; }, "unknown tensor 'evil'")]
#[case::dtype(|h: &mut serde_json::Value| h["decoder.out.conv.bias"]["dtype"] = "I32".into(), "'decoder.out.conv.bias' is I32, expected F32, BF16 or F16")]
#[case::offsets(|h: &mut serde_json::Value| h["decoder.out.conv.bias"]["data_offsets"] = serde_json::json!([0, u64::MAX]), "not a safetensors file")]
fn a_lying_header_is_refused(#[case] edit: fn(&mut serde_json::Value), #[case] message: &str) {
    let error = ModelFile::from_bytes(&with_header(edit)).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[rstest]
#[case::config("config", 1 << 16)]
#[case::training("training", 1 << 20)]
fn a_long_text_is_not_parsed(#[case] key: &str, #[case] most: usize) {
    let text = |bytes: usize| with_header(|h| h["__metadata__"][key] = " ".repeat(bytes).into());
    let error = |bytes: usize| ModelFile::from_bytes(&text(bytes)).unwrap_err().to_string();
    assert_eq!(error(most + 1), format!("'{key}' has {} bytes, expected at most {most}", most + 1));
    assert!(error(most).contains("is unreadable: EOF"), "{}", error(most));
}

#[test]
fn a_long_header_is_not_parsed() {
    let mut bytes = GOLDEN.to_vec();
    bytes[..8].copy_from_slice(&(64_u64 * (1 << 20) + 1).to_le_bytes());
    let error = ModelFile::from_bytes(&bytes).unwrap_err().to_string();
    assert_eq!(error, "the header declares 67108865 bytes, expected at most 67108864");
    for few in [0, 7, 8] {
        let error = ModelFile::from_bytes(&GOLDEN[..few]).unwrap_err().to_string();
        assert!(error.starts_with("not a safetensors file"), "{error}");
    }
}

/// The longest training that there can be has a history that is read.
#[test]
fn the_longest_history_is_within_bounds() {
    let line = EpochReport {
        epoch: 100_000,
        loss: -1.234_567_890_123_456_7e-100,
        reconstruction_cost: -1.234_567_890_123_456_7e-100,
        divergence: Some(-1.234_567_890_123_456_7e-100),
        holdout_reconstruction_cost: Some(-1.234_567_890_123_456_7e-100),
        holdout_divergence: Some(-1.234_567_890_123_456_7e-100),
        learning_rate: 1.234_567_890_123_456_7e-100,
        images: u64::MAX,
        skipped: u64::MAX,
        images_per_second: 1.234_567_890_123_456_7e-100,
        seconds: 1.234_567_890_123_456_7e-100,
    };
    let bytes = serde_json::to_string(&line).unwrap().len() + 1;
    assert!(bytes * 100_000 <= 48 << 20, "{bytes} bytes an epoch");
    // In the header, each quotation mark takes a backslash more.
    assert!((bytes + 22) * 100_000 <= MAX_HEADER_BYTES - (1 << 22));
}

#[test]
fn a_missing_tensor_is_named() {
    let mut file = ModelFile::from_bytes(GOLDEN).unwrap();
    file.tensors.remove("encoder.head.bias");
    let error = ModelFile::from_bytes(&file.to_bytes().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "tensor 'encoder.head.bias' is missing");
}

#[test]
fn values_must_be_finite_and_variances_positive() {
    let spoil = |name: &str, value: f32| {
        let mut file = ModelFile::from_bytes(GOLDEN).unwrap();
        file.tensors.get_mut(name).unwrap().values[0] = value;
        ModelFile::from_bytes(&file.to_bytes().unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        spoil("encoder.head.bias", f32::NAN),
        "tensor 'encoder.head.bias' has the value NaN, expected finite numbers"
    );
    assert_eq!(
        spoil("encoder.0.norm.running_var", -1.0),
        "tensor 'encoder.0.norm.running_var' has a negative variance"
    );
}

#[test]
fn every_truncation_is_an_error() {
    for len in (0..GOLDEN.len()).step_by(97) {
        assert!(ModelFile::from_bytes(&GOLDEN[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn written_files_read_back_whole() {
    let mut file = ModelFile::from_bytes(GOLDEN).unwrap();
    let calibration = Calibration::try_new(vec![2.0, 1.0]).unwrap();
    file.calibration = Some(calibration.with_scores(Score::AnomalyScore, vec![3.0, 4.0]).unwrap());
    let codes: Vec<f32> = (0..5 * file.config.latent_dim()).map(|i| (i * i % 7) as f32).collect();
    file.latent = Some(LatentStatistics::of_codes(&codes, file.config.latent_dim()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    file.write(&path).unwrap();
    file.write(&path).unwrap(); // replaces
    assert!(ModelFile::read(&path).unwrap() == file);
    assert!(std::fs::read(&path).unwrap() == file.to_bytes().unwrap(), "the same model, the same bytes");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let file = ModelFile::from_bytes(GOLDEN).unwrap();
    assert!(matches!(file.write("no/such/folder/model.safetensors"), Err(Error::Io { .. })));
    assert!(matches!(ModelFile::read("no/such/file"), Err(Error::Io { .. })));
}

/// The golden file with an anomaly map of one scale, whose tensors `edit` spoils.
fn with_map(edit: impl FnOnce(&mut Tensors)) -> Result<ModelFile> {
    let file = ModelFile::from_bytes(GOLDEN)?;
    let image = file.config.image();
    let usual = vec![image.height(), image.width()];
    let mut tensors = file.tensors.clone();
    let ones = |shape: Vec<usize>| TensorData { values: vec![1.0; shape.iter().product()], shape };
    tensors.insert("score.usual".to_owned(), ones(usual));
    tensors.insert("score.levels".to_owned(), ones(vec![1, 2]));
    edit(&mut tensors);
    let parts = Parts { score_scales: vec![ScoreScale::Part(8)], ..file.config.into() };
    ModelFile::from_bytes(&ModelFile::new(Config::try_new(parts)?, tensors, None).to_bytes()?)
}

#[test]
fn a_map_is_checked_as_weights_are() {
    let file = with_map(|_| ()).unwrap();
    assert!(file.anomaly().is_some());
    let bytes = file.to_bytes().unwrap();
    assert!(bytes.windows(5).any(|text| text == b"wae/2"));
    assert!(ModelFile::from_bytes(&bytes).unwrap() == file);
    let error = |edit: fn(&mut Tensors)| with_map(edit).unwrap_err().to_string();
    let spoiled = |tensors: &mut Tensors, name: &str, value: f32| tensors.get_mut(name).unwrap().values[1] = value;
    assert_eq!(error(|t| drop(t.remove("score.usual"))), "tensor 'score.usual' is missing");
    assert_eq!(error(|t| drop(t.remove("score.levels"))), "tensor 'score.levels' is missing");
    let short = |t: &mut Tensors| {
        t.insert("score.levels".to_owned(), TensorData { shape: vec![2, 2], values: vec![1.0; 4] });
    };
    assert_eq!(error(short), "tensor 'score.levels' has shape [2, 2], expected [1, 2]");
    let of_statistics = |value| {
        let error = with_map(|t| spoiled(t, "score.usual", value)).unwrap_err().to_string();
        error.strip_prefix("the anomaly map's statistics: ").unwrap_or(&error).to_owned()
    };
    assert_eq!(of_statistics(0.0), "a usual size is 0, expected a number above 0");
    assert_eq!(of_statistics(-2.0), "a usual size is -2, expected a number above 0");
    assert_eq!(of_statistics(f32::NAN), "tensor 'score.usual' has the value NaN, expected finite numbers");
    let error = with_map(|t| spoiled(t, "score.levels", 0.5)).unwrap_err().to_string();
    assert_eq!(error, "the anomaly map's statistics: a scale has the median 1 above its quantile 0.5");
}

/// A file of the first format holds no tensor of the second.
#[test]
fn a_map_without_scales_is_unknown() {
    let mut file = ModelFile::from_bytes(GOLDEN).unwrap();
    file.tensors.insert("score.usual".to_owned(), TensorData { shape: vec![8, 8], values: vec![1.0; 64] });
    let error = ModelFile::from_bytes(&file.to_bytes().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "unknown tensor 'score.usual' of shape [8, 8]");
}

/// Statistics of codes and scores of held-out rows are checked as weights are.
#[test]
fn statistics_that_do_not_fit_are_refused() {
    let with = |tensors: &[(&str, usize)]| {
        let mut file = ModelFile::from_bytes(GOLDEN).unwrap();
        for (name, len) in tensors {
            let data = TensorData { shape: vec![*len], values: vec![1.0; *len] };
            file.tensors.insert((*name).to_owned(), data);
        }
        ModelFile::from_bytes(&file.to_bytes().unwrap()).unwrap_err().to_string()
    };
    let mean = "calibration.latent_mean";
    assert!(with(&[(mean, 4)]).contains("expected both of calibration.latent_mean and calibration.latent_precision"));
    assert_eq!(
        with(&[(mean, 3), ("calibration.latent_precision", 9)]),
        "tensor 'calibration.latent_mean' has shape [3], expected [4]"
    );
    assert_eq!(
        with(&[(mean, 4), ("calibration.latent_precision", 16)]),
        "tensor 'calibration.latent_precision' has shape [16], expected [4, 4]"
    );
    assert_eq!(
        with(&[("calibration.anomaly_scores", 2)]),
        "tensor 'calibration.anomaly_scores' without 'calibration.costs'"
    );
    assert_eq!(
        with(&[("calibration.costs", 3), ("calibration.anomaly_scores", 2)]),
        "calibration has 3 costs and 2 values of anomaly_score"
    );
}
