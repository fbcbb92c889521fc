//! A checkpoint, spoiled in one way at a time.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::ModelFile;
use crate::train::tests::trainer;

/// The bytes of a checkpoint after one epoch.
fn bytes() -> Vec<u8> {
    let gan = [("network", "4".into()), ("objective", "gan".into()), ("adversary_widths", "8".into())];
    let mut trainer = trainer(&gan);
    trainer.epochs().next().unwrap().unwrap();
    trainer.checkpoint().unwrap().to_bytes().unwrap()
}

fn with_header(bytes: &[u8], edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    edit(&mut header);
    let mut text = serde_json::to_vec(&header).unwrap();
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice(), &bytes[8 + len..]].concat()
}

fn edit(header: &mut Value, key: &str, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(header["__metadata__"][key].as_str().unwrap()).unwrap();
    edit(&mut value);
    header["__metadata__"][key] = value.to_string().into();
}

#[rstest]
#[case::format(|h: &mut Value| h["__metadata__"]["format"] = "wae/1".into(), "format is 'wae/1', expected 'wae/1-checkpoint'")]
#[case::no_state(|h: &mut Value| { h["__metadata__"].as_object_mut().unwrap().remove("state"); }, "the metadata has no 'state'")]
#[case::no_config(|h: &mut Value| { h["__metadata__"].as_object_mut().unwrap().remove("config"); }, "the metadata has no 'config'")]
#[case::huge(|h: &mut Value| edit(h, "config", |c| c["latent_dim"] = 1_000_000_000.into()), "latent_dim must be between 1 and 4096")]
#[case::lying(|h: &mut Value| edit(h, "config", |c| c["latent_dim"] = 5.into()), "has shape [8, 8], expected [8, 5]")]
#[case::unknown_key(|h: &mut Value| edit(h, "state", |s| s["eval"] = 1.into()), "unknown field `eval`")]
#[case::steps(|h: &mut Value| edit(h, "state", |s| s["steps"] = u64::MAX.into()), "'state' has more than 281474976710656 steps")]
#[case::lambda(|h: &mut Value| edit(h, "state", |s| s["lambda"] = (-1).into()), "'state' has a negative lambda or time")]
#[case::epochs(|h: &mut Value| edit(h, "history", |r| r[0]["epoch"] = 7.into()), "the epochs of 'history' are not 1, 2, 3")]
#[case::missing(|h: &mut Value| { h.as_object_mut().unwrap().remove("optimizer.v.encoder.head.bias"); }, "not a safetensors file")]
#[case::renamed(|h: &mut Value| { let t = h.as_object_mut().unwrap().remove("optimizer.m.decoder.out.conv.bias").unwrap(); h["evil"] = t; }, "unknown tensor 'evil'")]
#[case::statistics(|h: &mut Value| { let t = h.as_object_mut().unwrap().remove("optimizer.m.encoder.0.norm.bias").unwrap(); h["optimizer.m.encoder.0.norm.running_mean"] = t; }, "unknown tensor 'optimizer.m.encoder.0.norm.running_mean'")]
#[case::dtype(|h: &mut Value| h["optimizer.v.adversary.out.bias"]["dtype"] = "I32".into(), "'optimizer.v.adversary.out.bias' is I32")]
#[case::half(|h: &mut Value| { let shape = json!([2, 4, 1, 4, 4]); h["encoder.0.conv.weight"]["dtype"] = "BF16".into(); h["encoder.0.conv.weight"]["shape"] = shape; }, "tensor 'encoder.0.conv.weight' has shape")]
fn a_lying_header_is_refused(#[case] spoil: fn(&mut Value), #[case] message: &str) {
    let spoiled = with_header(&bytes(), spoil);
    let error = Checkpoint::from_bytes(&spoiled).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn moments_must_be_finite_and_mean_squares_positive() {
    let spoil = |which: fn(&mut OptimizerState) -> &mut Tensors, value: f32| {
        let mut checkpoint = Checkpoint::from_bytes(&bytes()).unwrap();
        which(&mut checkpoint.optimizer).get_mut("encoder.head.bias").unwrap().values[0] = value;
        let read = Checkpoint::from_bytes(&checkpoint.to_bytes().unwrap()).unwrap_err().to_string();
        let Checkpoint { info, tensors, optimizer } = checkpoint;
        (read, Checkpoint::try_new(info, tensors, optimizer).map(drop))
    };
    let (read, made) = spoil(|o| &mut o.m, f32::INFINITY);
    assert_eq!(read, "tensor 'optimizer.m.encoder.head.bias' has the value inf, expected finite numbers");
    let made = made.unwrap_err().to_string();
    assert!(
        made.starts_with("no checkpoint of epoch 1: tensor 'encoder.head.bias' or its moments are not finite"),
        "{made}"
    );
    assert_eq!(spoil(|o| &mut o.v, -1.0).0, "tensor 'optimizer.v.encoder.head.bias' has a negative mean square");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = bytes();
    for len in (0..bytes.len()).step_by(101) {
        assert!(Checkpoint::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn written_files_read_back_whole_and_are_no_models() {
    let checkpoint = Checkpoint::from_bytes(&bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".m.checkpoint");
    checkpoint.write(&path).unwrap();
    checkpoint.write(&path).unwrap(); // replaces
    assert!(Checkpoint::read(&path).unwrap() == checkpoint);
    assert!(CheckpointInfo::read(&path).unwrap() == *checkpoint.info(), "the head by itself");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    let error = ModelFile::read(&path).unwrap_err().to_string();
    assert_eq!(error, "format is 'wae/1-checkpoint', expected 'wae/1' or 'wae/2'");

    let whole = std::fs::read(&path).unwrap();
    for len in [0, 7, 8, 100] {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(CheckpointInfo::read(&path).is_err(), "{len} bytes");
    }
    std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    let error = CheckpointInfo::read(&path).unwrap_err().to_string();
    assert!(error.starts_with("the header declares 18446744073709551615 bytes"), "{error}");
}
