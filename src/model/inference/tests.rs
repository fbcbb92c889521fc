use super::passes::IMAGES;
use super::*;

/// A model for images of 8 × 8 pixels, and more of them than pass through the layers together.
fn model_and_bytes() -> (Wae, Vec<u8>) {
    let file = ModelFile::from_bytes(include_bytes!("../../../fixtures/golden/golden.model.safetensors")).unwrap();
    let len = file.config().image().len();
    (
        Wae::try_new(&file, Device::Cpu, Precision::F32).unwrap(),
        (0..(2 * IMAGES + 7) * len).map(|i| (i * i % 251) as u8).collect(),
    )
}

/// To the bit, so that a UInt8 column and a Float32 column of v / 255 have the same scores.
#[test]
fn bytes_are_scored_as_the_floats_that_they_stand_for() {
    let (wae, bytes) = model_and_bytes();
    let floats: Vec<f32> = bytes.iter().map(|v| f32::from(*v) / 255.0).collect();
    let codes = wae.encode(&floats).unwrap();
    assert_eq!(wae.encode(&bytes).unwrap(), codes);
    assert_eq!(codes.len(), (2 * IMAGES + 7) * wae.config().latent_dim());
    let y = wae.decode(&codes).unwrap();
    assert_eq!(wae.costs(&bytes, &y).unwrap(), wae.costs(&floats, &y).unwrap());
    assert_eq!(wae.anomalies(&bytes, &y).unwrap(), wae.anomalies(&floats, &y).unwrap());
    assert_eq!(wae.cost_maps(&bytes, &y).unwrap(), wae.cost_maps(&floats, &y).unwrap());
}

#[test]
fn parts_of_images_are_refused() {
    let (wae, bytes) = model_and_bytes();
    let len = wae.config().image().len();
    let message = wae.encode(&bytes[..len + 1]).unwrap_err().to_string();
    assert_eq!(message, format!("{} values are no multiple of the {len} that a row has", len + 1));
    let y = vec![0.0; 2 * len];
    let message = wae.costs(&bytes[..len], &y).unwrap_err().to_string();
    assert_eq!(message, format!("{len} and {} values are not two equal numbers of images of {len} values", 2 * len));
    assert!(wae.costs(&bytes[..len + 1], &y[..len + 1]).is_err());
    assert!(wae.encode(&bytes[..0]).unwrap().is_empty() && wae.costs(&bytes[..0], &[]).unwrap().is_empty());
}
