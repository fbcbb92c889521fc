//! Times the networks on random images, and prints a JSON line a measurement: what `compare_torch.py` sets beside PyTorch.
//!
//! usage: network ARCH WHAT ITERATIONS [BATCH] [PRECISION] [DEVICE]
//!            ARCH small | mnist | celeba; WHAT encode | decode | train; PRECISION f32 | tf32 | bf16; DEVICE auto | cpu | cuda:N
//!        network peak                                     the processor's peak, by multiply-adds in registers
#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use wae_core::config::Network;
use wae_core::image::Limits;
use wae_core::kernels::Geometry;
use wae_core::{
    Config, DatasetBuilder, Device, ImageColumn, ImageShape, Precision, TrainOptions, Trainer, Wae, backend,
};

/// As in the `wae` shell: a step's activations are megabytes that glibc would give back and fault in again at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "support/peak.rs"]
mod peak;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo passes `--bench` of its own accord.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let line = match arguments.as_slice() {
        [peak] if peak == "peak" => json!({"gflops": peak::measure(), "variant": backend().name()}),
        [network, what, iterations, rest @ ..] => {
            let batch = rest.first().map_or(Ok(100), |b| b.parse())?;
            let named = |name: &String| Precision::ALL.iter().find(|(n, _)| n == name).map(|(_, p)| *p);
            let precision = rest.get(1).map_or(Some(Precision::F32), named).ok_or("PRECISION is f32, tf32 or bf16")?;
            let device = rest.get(2).map_or(Some(Device::Cpu), |name| Device::from_name(name)).ok_or(Device::NAMES)?;
            Cell::new(network, batch, precision, device.resolved())?.measure(what, iterations.parse()?)?
        }
        _ => {
            println!("usage: network ARCH WHAT ITERATIONS [BATCH] [PRECISION] [DEVICE] | network peak");
            return Ok(());
        }
    };
    println!("{line}");
    Ok(())
}

/// A network, a batch, a precision and a device.
struct Cell {
    network: String,
    shape: ImageShape,
    batch: usize,
    precision: Precision,
    device: Device,
    options: TrainOptions,
}

impl Cell {
    fn new(network: &str, batch: usize, precision: Precision, device: Device) -> Result<Self, Box<dyn Error>> {
        let celeba = network == "celeba";
        let options: Vec<(&str, Value)> = vec![
            ("network", json!(network)),
            ("latent_dim", json!(if celeba { 64 } else { 8 })),
            ("batch_size", json!(batch)),
            ("epochs", json!(1_000_000)),
            ("holdout", json!(0)),
            ("device", json!(device.to_string())),
            ("precision", json!(precision.name())),
        ];
        Ok(Self {
            network: network.to_owned(),
            shape: if celeba { ImageShape::new(64, 64, 3) } else { ImageShape::new(28, 28, 1) },
            batch,
            precision,
            device,
            options: TrainOptions::try_from_options(options)?,
        })
    }

    fn measure(&self, what: &str, iterations: usize) -> Result<Value, Box<dyn Error>> {
        let (field, images) = random_images(self.batch, self.shape)?;
        let column = ImageColumn::try_new(&field, &images, Some(self.shape))?;
        let mut dataset = DatasetBuilder::new(&self.options, Limits::default(), false);
        dataset.push(&column)?;
        let mut trainer = Trainer::try_new(self.options.clone(), dataset.finish()?)?;
        let gflop = self.gflop(what, trainer.config());
        let mut times = if what == "train" {
            // One batch an epoch: an epoch is a step, with its shuffle and its reading of the rows.
            let never = AtomicBool::new(false);
            timed(iterations, || trainer.next_epoch(&never).map(drop))?
        } else {
            let wae = Wae::on_device(&trainer.model()?, self.precision, self.device)?;
            drop(trainer);
            let rows: Vec<usize> = (0..self.batch).collect();
            let pixels = column.read(&rows, self.shape, None, &Limits::default())?;
            let codes = wae.encode(&pixels)?;
            match what {
                "encode" => timed(iterations, || wae.encode(&pixels).map(drop))?,
                "decode" => timed(iterations, || wae.decode(&codes).map(drop))?,
                _ => return Err(format!("WHAT is '{what}', expected encode, decode or train").into()),
            }
        };
        times.sort_by(f64::total_cmp);
        Ok(json!({
            "arch": self.network, "what": what, "variant": format!("wae-core {}", backend().name()), "batch": self.batch,
            "device": self.device.to_string(), "precision": self.precision.name(),
            "median_ms": 1e3 * times[times.len() / 2], "min_ms": 1e3 * times[0], "gflop": gflop,
        }))
    }

    /// Multiplications and additions of the convolutions, all taps counted, in units of 10⁹: of a step, three times those of
    /// a forward pass less the first layer's data gradient, which nobody needs.
    fn gflop(&self, what: &str, config: &Config) -> f64 {
        let Network { encoder_channels, decoder_channels, kernel, .. } = config.network();
        let product = |g: Geometry| 2.0 * g.products() as f64;
        let layer = |grid, channels, stride| product(Geometry::same(grid, channels, *kernel, stride));
        let (mut grid, mut channels) = ((self.shape.height(), self.shape.width()), self.shape.channels());
        let first = layer(grid, (channels, encoder_channels[0]), 2);
        let mut encode = 0.0;
        for &width in encoder_channels {
            encode += layer(grid, (channels, width), 2);
            (grid, channels) = ((grid.0.div_ceil(2), grid.1.div_ceil(2)), width);
        }
        encode += 2.0 * (grid.0 * grid.1 * channels * config.latent_dim()) as f64;
        let mut grid = (self.shape.height(), self.shape.width());
        let mut decode = layer(grid, (self.shape.channels(), decoder_channels[decoder_channels.len() - 1]), 1);
        for pair in decoder_channels.windows(2).rev() {
            decode += layer(grid, (pair[1], pair[0]), 2);
            grid = (grid.0.div_ceil(2), grid.1.div_ceil(2));
        }
        decode += 2.0 * (grid.0 * grid.1 * decoder_channels[0] * config.latent_dim()) as f64;
        let an_image = match what {
            "encode" => encode,
            "decode" => decode,
            _ => 3.0 * (encode + decode) - first,
        };
        an_image * self.batch as f64 / 1e9
    }
}

/// Seconds of each iteration, after one that is not counted.
fn timed<E>(iterations: usize, mut work: impl FnMut() -> Result<(), E>) -> Result<Vec<f64>, E> {
    work()?;
    let mut times = Vec::with_capacity(iterations);
    for _ in 0..iterations.max(1) {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

fn random_images(rows: usize, shape: ImageShape) -> Result<(Field, ArrayRef), Box<dyn Error>> {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let values = UInt8Array::from_iter_values((0..rows * shape.len()).map(|_| generator.random::<u8>()));
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let array = FixedSizeListArray::try_new(item, i32::try_from(shape.len())?, Arc::new(values), None)?;
    let field = Field::new("image", arrow::array::Array::data_type(&array).clone(), true);
    Ok((field, Arc::new(array)))
}
