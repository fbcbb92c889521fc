//! Skipped where no GPU can be opened, as the other tests of the GPU are.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;

use crate::config::{Config, TrainOptions};
use crate::image::{ImageShape, PixelSlice};
use crate::model::{Network, Precision};
use crate::ops::Target;
use crate::ops::cuda::tests::gpu;
use crate::{Error, Wae};

const SHAPE: ImageShape = ImageShape::new(12, 12, 1);

/// Encoder 1 → 8 → 16, decoder 16 → 8 → 1: of its convolutions with norms, all but the first have channels in eights.
fn config() -> Config {
    let options = [("network", "8,16".into()), ("latent_dim", 2.into())];
    TrainOptions::try_from_options(options).unwrap().config(SHAPE).unwrap()
}

/// One random network on a GPU, in each precision; `None` where there is no GPU.
fn scorer(precision: Precision) -> Option<Wae> {
    let mut generator = ChaCha8Rng::seed_from_u64(11);
    let network = Network::initialise(&config(), &Target::Cpu, Default::default(), &mut generator).unwrap();
    Some(Wae::from_tensors(config(), &network.tensors().unwrap(), &gpu(precision)?).unwrap())
}

fn bytes(images: usize) -> Vec<u8> {
    let mut generator = ChaCha8Rng::seed_from_u64(12);
    (0..images * SHAPE.len()).map(|_| generator.random()).collect()
}

#[rstest]
#[case(Precision::F32)]
#[case(Precision::Bf16)]
fn bytes_are_encoded_as_the_floats_that_they_stand_for(#[case] precision: Precision) {
    let Some(wae) = scorer(precision) else { return };
    let bytes = bytes(5);
    let floats: Vec<f32> = bytes.iter().map(|v| f32::from(*v) / 255.0).collect();
    let codes = wae.encode(&floats).unwrap();
    assert_eq!((wae.encode(&bytes).unwrap(), codes.len()), (codes, 10));
    assert_eq!(wae.encode(PixelSlice::U8(&[])).unwrap(), [0.0; 0]);
    assert!(matches!(wae.encode(&bytes[1..]), Err(Error::Data(_))));
}

/// Threads that send their images both ways, by way of the same page-locked memory.
#[test]
fn threads_send_bytes_and_floats_side_by_side() {
    let Some(wae) = scorer(Precision::F32) else { return };
    let bytes = bytes(6);
    let expected: Vec<f32> = bytes.chunks(SHAPE.len()).flat_map(|image| wae.encode(image).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (wae, bytes, expected) = (&wae, &bytes, &expected);
            scope.spawn(move || {
                for (image, code) in bytes.chunks(SHAPE.len()).zip(expected.chunks(2)) {
                    let floats: Vec<f32> = image.iter().map(|v| f32::from(*v) / 255.0).collect();
                    let images = if thread % 2 == 0 { PixelSlice::U8(image) } else { PixelSlice::F32(&floats) };
                    assert_eq!(wae.encode(images).unwrap(), code);
                }
            });
        }
    });
}

/// Two bytes a weight of the layers that compute in bf16, 8 → 16 and 16 → 8 with a kernel of 4; four of all others.
#[test]
fn weights_of_bf16_layers_are_kept_in_16_bits() {
    let (Some(wide), Some(narrow)) = (scorer(Precision::Tf32), scorer(Precision::Bf16)) else { return };
    assert_eq!(wide.memory() - narrow.memory(), 2 * (2 * 4 * 4 * 8 * 16));
    let codes = wide.encode(&bytes(3)).unwrap();
    let (wide, narrow) = (wide.decode(&codes).unwrap(), narrow.decode(&codes).unwrap());
    assert_ne!(wide, narrow, "the layers compute in bf16");
    assert!(wide.iter().zip(&narrow).all(|(a, b)| (a - b).abs() < 1e-2));
}
