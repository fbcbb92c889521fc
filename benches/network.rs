//! Times the networks on random images, and prints a JSON line a measurement: what `compare_torch.py` and
//! `gpu/compare.py` set beside PyTorch.
//!
//! usage: network ARCH WHAT ITERATIONS [BATCH] [PRECISION] [DEVICE]
//!            ARCH small | mnist | celeba; WHAT encode | decode | train
//!            PRECISION f32 | tf32 | bf16; DEVICE auto | cpu | cuda:N
//!        network peak                                     the processor's peak, by multiply-adds in registers
//!        network serve                                    answers each line of the standard input with a line of JSON:
//!            prepare ARCH WHAT STEPS BATCH PRECISION DEVICE   makes ready STEPS steps in a row, and runs them once
//!            run                                              runs them; their milliseconds, a step
//!
//! A step trains on a batch, or computes it and has the result in memory. Steps in a row are on different batches;
//! those of a training are an epoch: with its shuffle, with the gathering and the upload of each batch, and until all
//! is computed.
#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::error::Error;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use wae_core::bench::Geometry;
use wae_core::config::{Convolutions, Network};
use wae_core::image::{AxisOrder, Limits};
use wae_core::{
    Config, DatasetBuilder, Device, ImageColumn, ImageShape, Precision, TrainOptions, Trainer, Wae, backend,
};

/// As in the `wae` shell: a step's activations are megabytes that glibc would give back and fault in again at every
/// step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "support/peak.rs"]
mod peak;

type Failure = Box<dyn Error>;
/// Steps in a row.
type Work = Box<dyn FnMut() -> Result<(), Failure>>;

/// Batches that steps other than a training's take in turn.
const BATCHES: usize = 8;

fn main() -> Result<(), Failure> {
    // Cargo passes `--bench` of its own accord.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["peak"] => println!("{}", json!({"gflops": peak::measure(), "variant": backend().name()})),
        ["serve"] => serve()?,
        [network, what, iterations, rest @ ..] => {
            println!("{}", Cell::named(network, rest)?.measure(what, iterations.parse()?)?);
        }
        _ => {
            println!("usage: network ARCH WHAT ITERATIONS [BATCH] [PRECISION] [DEVICE] | network peak | network serve")
        }
    }
    Ok(())
}

/// Answers lines until there are no more. What fails is said, and the next line is taken.
fn serve() -> Result<(), Failure> {
    let mut prepared = None;
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&line?, &mut prepared).unwrap_or_else(|error| json!({"error": error.to_string()}));
        println!("{answer}");
    }
    Ok(())
}

fn answer(line: &str, prepared: &mut Option<(usize, Work)>) -> Result<Value, Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["prepare", network, what, steps, rest @ ..] => {
            // The last one's memory is free before the next one's is taken.
            *prepared = None;
            let cell = Cell::named(network, rest)?;
            let steps = steps.parse()?;
            let (mut work, gflop) = cell.work(what, steps)?;
            work()?;
            *prepared = Some((steps, work));
            Ok(json!({"gflop": gflop, "device": cell.device.to_string()}))
        }
        ["run"] => {
            let (steps, work) = prepared.as_mut().ok_or("nothing is prepared")?;
            let start = Instant::now();
            work()?;
            Ok(json!({"ms": 1e3 * start.elapsed().as_secs_f64() / *steps as f64}))
        }
        _ => Err(format!("'{line}', expected prepare or run").into()),
    }
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
    /// A cell of `[BATCH] [PRECISION] [DEVICE]`.
    fn named(network: &str, rest: &[&str]) -> Result<Self, Failure> {
        let batch = rest.first().map_or(Ok(100), |b| b.parse())?;
        let named = |name: &&str| Precision::ALL.iter().find(|(n, _)| n == name).map(|(_, p)| *p);
        let precision = rest.get(1).map_or(Some(Precision::F32), named).ok_or("PRECISION is f32, tf32 or bf16")?;
        let device = rest.get(2).map_or(Some(Device::Cpu), |name| Device::from_name(name)).ok_or(Device::NAMES)?;
        Self::new(network, batch, precision, device.resolved())
    }

    fn new(network: &str, batch: usize, precision: Precision, device: Device) -> Result<Self, Failure> {
        let celeba = network == "celeba";
        let options: Vec<(&str, Value)> = vec![
            ("network", json!(network)),
            ("latent_dim", json!(if celeba { 64 } else { 8 })),
            ("batch_size", json!(batch)),
            ("epochs", json!(100_000)),
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

    fn measure(&self, what: &str, iterations: usize) -> Result<Value, Failure> {
        let (work, gflop) = self.work(what, 1)?;
        let mut times = timed(iterations, work)?;
        times.sort_by(f64::total_cmp);
        Ok(json!({
            "arch": self.network, "what": what, "variant": format!("wae-core {}", backend().name()), "batch": self.batch,
            "device": self.device.to_string(), "precision": self.precision.name(),
            "median_ms": 1e3 * times[times.len() / 2], "min_ms": 1e3 * times[0], "gflop": gflop,
        }))
    }

    /// Steps in a row, and 10⁹ operations of one.
    fn work(&self, what: &str, steps: usize) -> Result<(Work, f64), Failure> {
        let batches = if what == "train" { steps } else { steps.min(BATCHES) };
        let (field, images) = random_images(self.batch * batches, self.shape)?;
        let column = ImageColumn::try_new_in_order(&field, &images, Some(self.shape), AxisOrder::Hwc)?;
        let mut dataset = DatasetBuilder::new(&self.options, Limits::default(), false);
        dataset.push(&column)?;
        let mut trainer = Trainer::try_new(self.options.clone(), dataset.finish()?)?;
        let gflop = self.gflop(what, trainer.config());
        if what == "train" {
            // As many batches as steps: an epoch.
            return Ok((Box::new(move || Ok(trainer.epochs().next().transpose().map(drop)?)), gflop));
        }
        let wae = Wae::try_new(&trainer.model()?, self.device, self.precision)?;
        drop(trainer);
        let rows = |batch: usize| (batch * self.batch..(batch + 1) * self.batch).collect::<Vec<_>>();
        // As scoring does: bytes stay bytes until they are on the GPU.
        let pixels = |batch| column.read_pixels(&rows(batch), self.shape, None, &Limits::default());
        let pixels = (0..batches).map(pixels).collect::<Result<Vec<_>, _>>()?;
        let in_turn = (0..steps).map(move |step| step % batches);
        let work: Work = match what {
            "encode" => Box::new(move || Ok(in_turn.clone().try_for_each(|i| wae.encode(&pixels[i]).map(drop))?)),
            "decode" => {
                let codes = pixels.iter().map(|pixels| wae.encode(pixels)).collect::<Result<Vec<_>, _>>()?;
                Box::new(move || Ok(in_turn.clone().try_for_each(|i| wae.decode(&codes[i]).map(drop))?))
            }
            _ => return Err(format!("WHAT is '{what}', expected encode, decode or train").into()),
        };
        Ok((work, gflop))
    }

    /// Multiplications and additions of the convolutions, all taps counted, in units of 10⁹: of a step, three times
    /// those of a forward pass less the first layer's data gradient, which nobody needs.
    fn gflop(&self, what: &str, config: &Config) -> f64 {
        let Network::Convolutions(network) = config.network() else { return 0.0 };
        let Convolutions { encoder_channels, decoder_channels, kernel } = network;
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

fn random_images(rows: usize, shape: ImageShape) -> Result<(Field, ArrayRef), Failure> {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let values = UInt8Array::from_iter_values((0..rows * shape.len()).map(|_| generator.random::<u8>()));
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let array = FixedSizeListArray::try_new(item, i32::try_from(shape.len())?, Arc::new(values), None)?;
    let field = Field::new("image", arrow::array::Array::data_type(&array).clone(), true);
    Ok((field, Arc::new(array)))
}
