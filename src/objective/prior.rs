//! The prior over codes.
use crate::config::Prior;
/// `rows` codes of `dim` values, (rows, dim), from a seeded generator.
pub fn sample(prior: Prior, rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let _ = (prior, rows, dim, seed);
    unimplemented!()
}
