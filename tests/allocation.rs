//! The memory that the engine says a training takes, beside the memory that it takes: every allocation is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, FixedSizeListArray, UInt8Array};
use arrow::datatypes::{DataType, Field};
use wae_core::image::{AxisOrder, Limits, PixelSlice};
use wae_core::model::scoring_memory;
use wae_core::{DatasetBuilder, Device, ImageColumn, ImageShape, Precision, TrainOptions, Trainer, Wae};

/// The system's allocator, with the bytes that are in use and the most that were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc`, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The result of `work`, and the most bytes that it had allocated at once.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed) - before)
}

fn images(rows: usize, shape: ImageShape) -> ImageColumn {
    let values = UInt8Array::from_iter_values((0..rows * shape.len()).map(|i| (i * i % 251) as u8));
    let item = Arc::new(Field::new("item", DataType::UInt8, true));
    let size = i32::try_from(shape.len()).unwrap();
    let images: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, size, Arc::new(values), None).unwrap());
    let field = Field::new("image", images.data_type().clone(), true);
    ImageColumn::try_new_in_order(&field, &images, Some(shape), AxisOrder::Hwc).unwrap()
}

/// A name, the images' shape and the options of a training.
type Case<'a> = (&'a str, ImageShape, &'a [(&'a str, serde_json::Value)]);

/// One test, since the counters are the process's.
#[test]
fn estimates_are_near_what_is_allocated() {
    let grey = ImageShape::new(28, 28, 1);
    let faces = ImageShape::new(64, 64, 3);
    let cases: [Case; 8] = [
        ("small", grey, &[("network", "small".into())]),
        ("two layers", faces, &[("network", "8,16".into())]),
        ("large batch", grey, &[("network", "16,32".into()), ("batch_size", 500.into())]),
        ("noise", faces, &[("network", "8,16".into()), ("noise", 0.1.into()), ("cost", "structural".into())]),
        ("wide", grey, &[("network", "128,128".into()), ("latent_dim", 128.into()), ("batch_size", 8.into())]),
        ("gan", grey, &[("network", "8,16".into()), ("objective", "gan".into())]),
        (
            "pretrained vae",
            faces,
            &[("network", "8,16".into()), ("objective", "vae".into()), ("pretrain", true.into())],
        ),
        ("sinkhorn", grey, &[("network", "4".into()), ("objective", "sinkhorn".into()), ("batch_size", 600.into())]),
    ];
    let mut off = Vec::new();
    for (name, shape, options) in cases {
        let epochs = [("epochs", 1.into()), ("holdout", 0.3.into())];
        let options = TrainOptions::try_from_options(epochs.into_iter().chain(options.iter().cloned())).unwrap();
        let mut builder = DatasetBuilder::new(&options, Limits::default(), false);
        builder.push(&images(300.max(2 * options.batch_size), shape)).unwrap();
        let dataset = builder.finish().unwrap();
        let estimate = options.memory(shape).unwrap();
        let (model, training) = peak(|| {
            let mut trainer = Trainer::try_new(options.clone(), dataset).unwrap();
            trainer.epochs().for_each(|epoch| assert!(epoch.is_ok(), "{epoch:?}"));
            let model = trainer.model().unwrap();
            model.to_bytes().unwrap();
            model
        });
        let wae = Wae::try_new(&model, Device::Cpu, Precision::F32).unwrap();
        let column = images(256, shape);
        let rows: Vec<usize> = (0..column.len()).collect();
        let score = |images: PixelSlice<'_>| {
            let decoded = wae.decode(&wae.encode(images).unwrap()).unwrap();
            (wae.costs(images, &decoded).unwrap(), wae.cost_maps(images, &decoded).unwrap())
        };
        let (_, scoring) = peak(|| score((&column.read(&rows, shape, None, &Limits::default()).unwrap()).into()));
        let (_, of_bytes) =
            peak(|| score((&column.read_pixels(&rows, shape, None, &Limits::default()).unwrap()).into()));
        let expected = scoring_memory(wae.config(), 256);
        println!("{name}: training {training} of {estimate}, scoring {scoring} of {expected}, {of_bytes} of bytes");
        off.extend((!near(training, estimate)).then(|| format!("{name}: training")));
        off.extend((!near(scoring, expected)).then(|| format!("{name}: scoring")));
        off.extend((!near(of_bytes, expected) || of_bytes > scoring).then(|| format!("{name}: scoring of bytes")));
    }
    assert!(off.is_empty(), "{off:?}");
}

/// Up to a tenth above the estimate, or down to half of it; of little, a few megabytes do not matter.
fn near(got: usize, estimate: usize) -> bool {
    got < estimate + estimate / 10 && estimate < 2 * got + (4 << 20)
}
