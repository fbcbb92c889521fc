//! Times the networks on random images, and prints a JSON line a measurement: what `compare_torch.py` sets beside PyTorch.
//!
//! usage: network ARCH WHAT ITERATIONS [BATCH]      ARCH small | mnist | celeba; WHAT encode | decode | train

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use wae_core::image::Limits;
use wae_core::{DatasetBuilder, ImageColumn, ImageShape, TrainOptions, Trainer, Wae, backend};

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo passes `--bench` of its own accord.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [network, what, iterations, rest @ ..] = arguments.as_slice() else {
        println!("usage: network ARCH WHAT ITERATIONS [BATCH]");
        return Ok(());
    };
    let (iterations, batch) = (iterations.parse()?, rest.first().map_or(Ok(100), |b| b.parse())?);
    let shape = if network == "celeba" { ImageShape::new(64, 64, 3) } else { ImageShape::new(28, 28, 1) };
    let mut times = measure(network, what, iterations, batch, shape)?;
    times.sort_by(f64::total_cmp);
    let line = json!({
        "arch": network, "what": what, "variant": format!("wae-core {}", backend().name()), "batch": batch,
        "median_ms": 1e3 * times[times.len() / 2], "min_ms": 1e3 * times[0],
    });
    println!("{line}");
    Ok(())
}

/// Seconds of each iteration, after one that is not counted.
fn measure(
    network: &str,
    what: &str,
    iterations: usize,
    batch: usize,
    shape: ImageShape,
) -> Result<Vec<f64>, Box<dyn Error>> {
    let latent_dim = if network == "celeba" { 64 } else { 8 };
    let options: Vec<(&str, Value)> = vec![
        ("network", json!(network)),
        ("latent_dim", json!(latent_dim)),
        ("batch_size", json!(batch)),
        ("epochs", json!(iterations + 1)),
        ("holdout", json!(0)),
    ];
    let options = TrainOptions::try_from_options(options)?;
    let (field, images) = random_images(batch, shape)?;
    let mut dataset = DatasetBuilder::new(&options, Limits::default(), false);
    dataset.push(&ImageColumn::try_new(&field, &images, Some(shape))?)?;
    let mut trainer = Trainer::try_new(options, dataset.finish()?)?;
    let mut times = Vec::new();
    if what == "train" {
        for _ in 0..=iterations {
            let start = Instant::now();
            trainer.next_epoch(&AtomicBool::new(false))?;
            times.push(start.elapsed().as_secs_f64());
        }
        return Ok(times.split_off(1));
    }
    let wae = Wae::try_new(&trainer.model()?)?;
    drop(trainer);
    let column = ImageColumn::try_new(&field, &images, Some(shape))?;
    let pixels = column.read(&(0..batch).collect::<Vec<_>>(), shape, None, &Limits::default())?;
    let codes = wae.encode(&pixels)?;
    for _ in 0..=iterations {
        let start = Instant::now();
        match what {
            "encode" => std::hint::black_box(wae.encode(&pixels)?),
            "decode" => std::hint::black_box(wae.decode(&codes)?),
            _ => return Err(format!("WHAT is '{what}', expected encode, decode or train").into()),
        };
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times.split_off(1))
}

fn random_images(rows: usize, shape: ImageShape) -> Result<(Field, ArrayRef), Box<dyn Error>> {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let values = UInt8Array::from_iter_values((0..rows * shape.len()).map(|_| generator.random::<u8>()));
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let array = FixedSizeListArray::try_new(item, i32::try_from(shape.len())?, Arc::new(values), None)?;
    let field = Field::new("image", arrow::array::Array::data_type(&array).clone(), true);
    Ok((field, Arc::new(array)))
}
