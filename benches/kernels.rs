//! Each kernel on the layers of the three networks, batch 100, in GFLOP/s (criterion's `Gelem/s`) or bytes moved a
//! second.
//!
//! `cargo bench --bench kernels` prints the measured peak of the processor first: what a convolution could reach at
//! best. Work is counted with all taps, also those that fall on padding and are left out, so that small grids can
//! exceed the peak.
#![expect(clippy::print_stdout, reason = "the peak belongs beside the figures")]

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use wae_core::bench::{
    AdamStep, DownWeights, Epilogue, Geometry, UpWeights, adam, norm_relu, norm_relu_gradient, weight_gradient,
};

#[path = "support/peak.rs"]
mod peak;

const BATCH: usize = 100;

/// Layers by name: large grid, channels on both, kernel, stride.
fn layers() -> [(&'static str, Geometry); 7] {
    [
        ("small 28x28x1-32 k4s2", Geometry::same((28, 28), (1, 32), 4, 2)),
        ("small 14x14x32-64 k4s2", Geometry::same((14, 14), (32, 64), 4, 2)),
        ("small 7x7x64-128 k4s2", Geometry::same((7, 7), (64, 128), 4, 2)),
        ("small 28x28x1-32 k4s1", Geometry::same((28, 28), (1, 32), 4, 1)),
        ("mnist 14x14x128-256 k4s2", Geometry::same((14, 14), (128, 256), 4, 2)),
        ("mnist 4x4x512-1024 k4s2", Geometry::same((4, 4), (512, 1024), 4, 2)),
        ("celeba 32x32x128-256 k5s2", Geometry::same((32, 32), (128, 256), 5, 2)),
    ]
}

/// Numbers in [−1, 1), fixed.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 % 2003) as f32 / 1001.5) - 1.0).collect()
}

fn convolutions(criterion: &mut Criterion) {
    println!("measured peak: {:.0} GFLOP/s on {} threads", peak::measure(), rayon::current_num_threads());
    for (name, g) in layers() {
        let flop = 2 * (BATCH * g.products()) as u64;
        let large = values(BATCH * g.large_len());
        let small = values(BATCH * g.small_len());
        let weights = values(g.weights_len());
        let down = DownWeights::new(g, &weights, None);
        let up = UpWeights::new(g, &weights, None);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(flop)).sample_size(20);
        group.bench_function("down", |b| b.iter(|| black_box(down.apply(&large, Epilogue::default()))));
        group.bench_function("up", |b| b.iter(|| black_box(up.apply(&small, Epilogue::default()))));
        group.bench_function("weight gradient", |b| b.iter(|| black_box(weight_gradient(&g, &large, &small))));
        bf16(&mut group, g, &weights, &large, &small);
        group.finish();
    }
}

fn bf16(group: &mut BenchmarkGroup<'_, WallTime>, g: Geometry, weights: &[f32], large: &[f32], small: &[f32]) {
    let narrow = |values: &[f32]| values.iter().map(|v| half::bf16::from_f32(*v)).collect::<Vec<_>>();
    if let Some(down) = DownWeights::new_bf16(g, weights, None) {
        let large = narrow(large);
        group.bench_function("down bf16", |b| b.iter(|| black_box(down.apply(&large, Epilogue::default()))));
    }
    if let Some(up) = UpWeights::new_bf16(g, weights, None) {
        let small = narrow(small);
        group.bench_function("up bf16", |b| b.iter(|| black_box(up.apply(&small, Epilogue::default()))));
    }
}

fn element_wise(criterion: &mut Criterion) {
    let channels = 64;
    let pixels = BATCH * 14 * 14;
    let x = values(pixels * channels);
    let gamma = vec![1.0; channels];
    let beta = vec![0.1; channels];
    let bytes = (x.len() * size_of::<f32>()) as u64;
    let mut group = criterion.benchmark_group("norm and ReLU 14x14x64");
    group.throughput(Throughput::Bytes(3 * bytes)); // two reads, one write
    group.bench_function("forward", |b| b.iter(|| black_box(norm_relu(&x, &gamma, &beta))));
    let (out, statistics) = norm_relu(&x, &gamma, &beta);
    group.throughput(Throughput::Bytes(7 * bytes)); // three reads twice, one write
    group.bench_function("backward", |b| {
        b.iter(|| black_box(norm_relu_gradient(&x, &out, &x, &gamma, &statistics)));
    });
    group.finish();
    let mut group = criterion.benchmark_group("Adam 4M parameters");
    let gradient = values(1 << 22);
    let (mut weights, mut m, mut v) = (gradient.clone(), vec![0.0; 1 << 22], vec![0.0; 1 << 22]);
    group.throughput(Throughput::Bytes(7 * (1 << 24))); // four reads, three writes
    let step = AdamStep::new(1, 1e-3, 0.5, 0.999, 1e-8);
    group.bench_function("step", |b| b.iter(|| adam(step, &mut weights, &gradient, &mut m, &mut v)));
    group.finish();
}

criterion_group!(kernels, convolutions, element_wise);
criterion_main!(kernels);
