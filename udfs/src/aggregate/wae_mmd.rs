//! `wae_mmd(latent [, model])`: how far codes are from the model's prior.
//!
//! `MMD²(q, p) = Σ_{i≠j} k(q_i, q_j)/(n(n − 1)) + Σ_{i≠j} k(p_i, p_j)/(n(n − 1)) − 2 Σ_{i,j} k(q_i, p_j)/n²`
//!
//! Where: q are the codes, p as many draws from the prior with a fixed seed, and k is the model's kernel.

use datafusion::logical_expr::AggregateUDF;
use wae_core::Config;
use wae_core::objective::two_sample;

use crate::aggregate::latent::{LatentAggregate, LatentStatistic};
use crate::documentation::{FunctionDocumentation, LATENT_ARGUMENT, MODEL_ARGUMENT};

/// The aggregate.
pub(crate) fn wae_mmd_udaf() -> AggregateUDF {
    AggregateUDF::from(LatentAggregate::new(&WaeMmd))
}

/// Codes -> the statistic.
#[derive(Debug)]
struct WaeMmd;

impl LatentStatistic for WaeMmd {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn rows(&self) -> usize {
        two_sample::MMD_ROWS
    }

    fn of(&self, config: &Config, codes: &[f32]) -> Option<f64> {
        two_sample::mmd(config, codes)
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: "wae_mmd",
    syntax: "wae_mmd(latent [, model])",
    description: "The unbiased MMD² of latent codes against as many seeded draws from the model's prior, with the model's kernel; \
         a Float64, negative for half of all samples from the prior itself. NULL codes are skipped; below two it is NULL. \
         Of more than 10000 codes, the 10000 with the lowest hashes of their bits are taken, whatever their order or \
         partition.",
    arguments: &[("latent", LATENT_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT wae_mmd(wae_encode(image, 'fashion'), 'fashion') FROM 'images.parquet';",
    related: &["wae_mmd_p_value"],
};
