//! Two-sample tests of Q_Z = P_Z, codes against their prior, by the maximum mean discrepancy.
//!
//! ```text
//! MMD²(q, p)           of n codes q and n seeded draws p from the prior, with the model's kernel (see `mmd.rs`)
//! p-value = (1 + #{b : MMD²(π_b(q, p)) ≥ MMD²(q, p)}) / (1 + B)
//! ```
//!
//! Where: π_b is the b-th of B = [`PERMUTATIONS`] seeded permutations, which deals the 2n pooled rows into two halves
//! anew. Under Q_Z = P_Z every deal is as likely as the one that was drawn, so that p ≤ α happens with probability at
//! most α.
//!
//! Both take their codes from a [`Subsample`], which bounds their number and brings them into an order of its own, so
//! that neither depends on the order in which codes arrive. The draws have a fixed seed of their own: of the same
//! codes, both are always the same.
//!
//! # Source
//! Gretton, Borgwardt, Rasch, Schölkopf and Smola, "A kernel two-sample test", JMLR 13 (2012), lemma 6; the p-value of
//! a Monte Carlo test as in Davison and Hinkley, "Bootstrap methods and their application" (1997), equation 4.11.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Config;
use crate::objective::mmd::{self, Kernel, squared_distance};
use crate::objective::sample;

/// Most codes that [`mmd()`] should be given: its time grows with their square.
pub const MMD_ROWS: usize = 10_000;

/// Most codes that [`mmd_p_value`] should be given: 1,000 take 32 MB for the kernel's values of all pairs.
pub const P_VALUE_ROWS: usize = 1_000;

/// Permutations of [`mmd_p_value`]: its smallest p-value is 0.001.
pub const PERMUTATIONS: usize = 999;

/// Seeds of the draws and of the permutations, unlike any that a user is likely to draw samples with: draws that are
/// the codes themselves would show no difference at all.
const DRAWS_SEED: u64 = 0x7477_6f5f_7361_6d70;
const PERMUTATIONS_SEED: u64 = DRAWS_SEED + 1;

/// The unbiased MMD² of codes against as many seeded draws from the prior; `None` below two codes.
///
/// # Shapes
/// `codes`: (n, d_z).
///
/// # Example
/// ```
/// use wae_core::config::{Config, Prior};
/// use wae_core::objective::{sample, two_sample};
///
/// # let json = r#"{"image": {"height": 8, "width": 8, "channels": 1}, "latent_dim": 2,
/// #   "network": {"encoder_channels": [4], "decoder_channels": [4], "kernel": 3}, "encoder": "deterministic",
/// #   "prior": {"kind": "normal", "scale": 1.0}, "cost": "squared",
/// #   "objective": {"kind": "mmd", "kernel": "imq", "scales": [1.0], "lambda": 1.0}}"#;
/// # let config: Config = serde_json::from_str(json)?;
/// let codes = sample(Prior::default(), 500, config.latent_dim(), 7);
/// assert!(two_sample::mmd(&config, &codes).is_some_and(|mmd| mmd.abs() < 0.01));
/// assert!(two_sample::mmd_p_value(&config, &codes).is_some_and(|p| p > 0.01));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn mmd(config: &Config, codes: &[f32]) -> Option<f64> {
    mmd::value(&Kernel::of(config), codes, &draws(config, codes), config.latent_dim())
}

/// The permutation p-value of [`mmd()`], in (0, 1]; `None` below two codes.
///
/// # Shapes
/// `codes`: (n, d_z).
pub fn mmd_p_value(config: &Config, codes: &[f32]) -> Option<f64> {
    let rows = codes.len() / config.latent_dim();
    if rows < 2 {
        return None;
    }
    let pooled = [codes, &draws(config, codes)].concat(); // (2N, Z)
    let kernel = kernel_matrix(&Kernel::of(config), &pooled, config.latent_dim());
    let statistics = statistics(&kernel, &signs(rows));
    let observed = statistics[0];
    let as_large = statistics[1..].iter().filter(|permuted| **permuted >= observed).count();
    Some((1 + as_large) as f64 / (1 + PERMUTATIONS) as f64)
}

fn draws(config: &Config, codes: &[f32]) -> Vec<f32> {
    sample(config.prior(), codes.len() / config.latent_dim(), config.latent_dim(), DRAWS_SEED)
}

/// The kernel of all pairs of rows, (N, N).
fn kernel_matrix(kernel: &Kernel, rows: &[f32], dim: usize) -> Vec<f64> {
    let row = |a: &[f32]| -> Vec<f64> {
        rows.chunks_exact(dim).map(|b| kernel.of_distance(squared_distance(a, b))).collect()
    };
    rows.par_chunks_exact(dim).flat_map_iter(row).collect()
}

/// Statistics computed in one pass over the kernel matrix, which is read from memory once for all of them.
const LANES: usize = 8;

/// The half of each of the 2n pooled rows, +1 or −1, in blocks of [`LANES`] deals: first as observed, then permuted.
fn signs(rows: usize) -> Vec<Vec<[f64; LANES]>> {
    let mut generator = ChaCha8Rng::seed_from_u64(PERMUTATIONS_SEED);
    let mut deal: Vec<f64> = (0..2 * rows).map(|row| if row < rows { 1.0 } else { -1.0 }).collect();
    let mut blocks = vec![vec![[0.0; LANES]; 2 * rows]; (1 + PERMUTATIONS) / LANES];
    for (block, lane) in (0..blocks.len()).flat_map(|block| (0..LANES).map(move |lane| (block, lane))) {
        if (block, lane) != (0, 0) {
            deal.shuffle(&mut generator);
        }
        blocks[block].iter_mut().zip(&deal).for_each(|(signs, sign)| signs[lane] = *sign);
    }
    blocks
}

/// `Σ_{i<j} s_i s_j k(x_i, x_j)` of each deal s.
///
/// With halves of one size, MMD² is this sum times a positive constant plus another constant: pairs within a half count
/// +1/(n(n − 1)) and pairs across −1/n², and the sum of all pairs is the same for every deal. So the two give one
/// p-value.
fn statistics(kernel: &[f64], blocks: &[Vec<[f64; LANES]>]) -> Vec<f64> {
    let block = |signs: &Vec<[f64; LANES]>| -> [f64; LANES] {
        let mut sums = [0.0; LANES];
        for (i, (row, own)) in kernel.chunks_exact(signs.len()).zip(signs).enumerate() {
            let mut products = [0.0; LANES];
            for (k, other) in row[i + 1..].iter().zip(&signs[i + 1..]) {
                products.iter_mut().zip(other).for_each(|(product, sign)| *product += k * sign);
            }
            sums.iter_mut().zip(products).zip(own).for_each(|((sum, product), sign)| *sum += sign * product);
        }
        sums
    };
    blocks.par_iter().flat_map_iter(block).collect()
}

/// The `limit` codes with the lowest hashes of all that were pushed, whatever their order.
///
/// A code's hash is of its bits, so that equal codes go together, and of several collections the merged subsample is
/// that of all their codes. Below the limit it holds every code.
///
/// # Example
/// ```
/// use wae_core::objective::two_sample::Subsample;
///
/// let mut forward = Subsample::new(2, 3);
/// let mut backward = Subsample::new(2, 3);
/// let codes = [[0.0_f32, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]];
/// codes.iter().for_each(|code| forward.push(code));
/// codes.iter().rev().for_each(|code| backward.push(code));
/// assert_eq!(forward.codes().len(), 6);
/// assert_eq!(forward.codes(), backward.codes());
/// ```
#[derive(Debug, Clone)]
pub struct Subsample {
    dim: usize,
    limit: usize,
    codes: Vec<f32>,
    hashes: Vec<u64>,
    /// No code with a higher hash can be among the lowest any more.
    cutoff: u64,
}

impl Subsample {
    /// An empty subsample of at most `limit` codes of `dim` values, both at least 1.
    pub fn new(dim: usize, limit: usize) -> Self {
        Self { dim, limit, codes: Vec::new(), hashes: Vec::new(), cutoff: u64::MAX }
    }

    /// Takes a code of `dim` values.
    pub fn push(&mut self, code: &[f32]) {
        let bytes: Vec<u8> = code.iter().flat_map(|v| v.to_le_bytes()).collect();
        let hash = xxh3_64(&bytes);
        if hash > self.cutoff {
            return;
        }
        self.codes.extend_from_slice(code);
        self.hashes.push(hash);
        // Twice the limit, so that the work of a pruning is spread over as many pushes.
        if self.hashes.len() >= 2 * self.limit {
            (self.codes, self.hashes) = self.lowest();
            self.cutoff = self.hashes.last().copied().unwrap_or(u64::MAX);
        }
    }

    /// The codes, ordered by hash: (n, dim), n at most the limit.
    pub fn codes(&self) -> Vec<f32> {
        self.lowest().0
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        self.codes.capacity() * size_of::<f32>() + self.hashes.capacity() * size_of::<u64>()
    }

    fn lowest(&self) -> (Vec<f32>, Vec<u64>) {
        let code = |row: usize| &self.codes[row * self.dim..(row + 1) * self.dim];
        let bits = |row: usize| code(row).iter().map(|v| v.to_bits());
        let mut rows: Vec<usize> = (0..self.hashes.len()).collect();
        // By the bits where hashes are equal: codes equal in both are interchangeable.
        rows.sort_unstable_by(|a, b| self.hashes[*a].cmp(&self.hashes[*b]).then_with(|| bits(*a).cmp(bits(*b))));
        rows.truncate(self.limit);
        (rows.iter().flat_map(|row| code(*row)).copied().collect(), rows.iter().map(|row| self.hashes[*row]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{IMQ_SCALES, KernelKind, Prior};

    fn config(latent_dim: usize) -> Config {
        let json = serde_json::json!({
            "image": {"height": 8, "width": 8, "channels": 1}, "latent_dim": latent_dim,
            "network": {"encoder_channels": [4], "decoder_channels": [4], "kernel": 3},
            "encoder": "deterministic", "prior": {"kind": "normal", "scale": 1.0}, "cost": "squared",
            "objective": {"kind": "mmd", "kernel": "imq", "scales": IMQ_SCALES, "lambda": 1.0},
        });
        serde_json::from_value(json).unwrap()
    }

    /// Sums over signs rank deals as MMD² itself does, computed of each half's rows.
    #[test]
    fn the_statistic_ranks_as_mmd() {
        let dim = 2;
        let rows = 6;
        let kernel = Kernel::new(KernelKind::Imq, &IMQ_SCALES, dim, Prior::default());
        let pooled = sample(Prior::default(), 2 * rows, dim, 5);
        let blocks = signs(rows);
        let statistics = statistics(&kernel_matrix(&kernel, &pooled, dim), &blocks);
        assert_eq!(statistics.len(), 1 + PERMUTATIONS);
        let half = |deal: usize, sign: f64| -> Vec<f32> {
            let signs = blocks[deal / LANES].iter().map(|signs| signs[deal % LANES]);
            signs.zip(pooled.chunks_exact(dim)).filter(|(s, _)| *s == sign).flat_map(|(_, row)| row.to_vec()).collect()
        };
        let value = |deal: usize| mmd::value(&kernel, &half(deal, 1.0), &half(deal, -1.0), dim).unwrap();
        assert_eq!(half(0, 1.0), pooled[..rows * dim], "the first deal is the one observed");
        // An affine function with a positive slope, the same for all deals.
        let slope = (value(1) - value(0)) / (statistics[1] - statistics[0]);
        assert!(slope > 0.0);
        for deal in 0..40 {
            let expected = value(0) + slope * (statistics[deal] - statistics[0]);
            assert!((value(deal) - expected).abs() < 1e-10, "deal {deal}");
        }
    }

    /// Codes from the prior give p-values spread evenly; codes of twice the scale give the least one.
    #[test]
    fn p_values_of_the_prior_and_of_another_distribution() {
        let config = config(8);
        let p_values: Vec<f64> =
            (0..40).map(|seed| mmd_p_value(&config, &sample(Prior::default(), 60, 8, seed)).unwrap()).collect();
        let mean = p_values.iter().sum::<f64>() / 40.0;
        // The standard error of a uniform mean is √(1/12/40) = 0.046; the draws are the same in all, which adds to it.
        assert!((mean - 0.5).abs() < 0.25, "{p_values:?}");
        assert!(p_values.iter().all(|p| (0.001..=1.0).contains(p)), "{p_values:?}");
        let wide = sample(Prior { scale: 2.0, ..Prior::default() }, 200, 8, 3);
        assert_eq!(mmd_p_value(&config, &wide), Some(0.001));
        assert!(mmd(&config, &wide).unwrap() > 0.05);
    }

    /// By its definition: 2 codes and 2 draws can be dealt in three ways, of which a third is the observed one.
    #[test]
    fn two_codes_far_away() {
        let config = config(1);
        let p = mmd_p_value(&config, &[100.0, 101.0]).unwrap();
        assert!((p - 1.0 / 3.0).abs() < 0.05, "{p}");
        assert_eq!(mmd_p_value(&config, &[100.0]), None);
        assert_eq!((mmd(&config, &[100.0]), mmd(&config, &[])), (None, None));
    }

    /// The draws do not coincide with what `wae_sample` gives under its usual seeds.
    #[test]
    fn samples_of_small_seeds_are_not_the_draws() {
        let config = config(4);
        for seed in 0..10 {
            let codes = sample(Prior::default(), 300, 4, seed);
            assert!(mmd(&config, &codes).unwrap().abs() < 0.05);
        }
    }

    #[test]
    fn a_subsample_is_the_same_in_any_order_and_of_any_parts() {
        let codes = sample(Prior::default(), 1000, 3, 1);
        let of = |codes: &mut dyn Iterator<Item = &[f32]>| {
            let mut subsample = Subsample::new(3, 100);
            codes.for_each(|code| subsample.push(code));
            subsample
        };
        let all = of(&mut codes.chunks_exact(3)).codes();
        assert_eq!(all.len(), 300);
        assert_eq!(all, of(&mut codes.chunks_exact(3).rev()).codes());
        let parts: Vec<f32> = codes.chunks(750).flat_map(|part| of(&mut part.chunks_exact(3)).codes()).collect();
        assert_eq!(all, of(&mut parts.chunks_exact(3)).codes());
        // Chosen by hash, not by value: the mean stays near 0 (standard error 1/√300).
        let mean = all.iter().sum::<f32>() / 300.0;
        assert!(mean.abs() < 4.0 / 300_f32.sqrt(), "{mean}");
    }

    #[test]
    fn equal_codes_are_all_kept() {
        let mut subsample = Subsample::new(1, 4);
        [1.0, 1.0, 1.0].iter().for_each(|code| subsample.push(&[*code]));
        assert_eq!(subsample.codes(), [1.0; 3]);
        (0..100).for_each(|_| subsample.push(&[1.0]));
        assert_eq!(subsample.codes(), [1.0; 4]);
        assert!(subsample.memory() >= 4 * 4 + 4 * 8);
    }
}
