//! `wae_mmd(latent [, model])`: how far codes are from the model's prior.
//!
//! `MMD²(q, p) = Σ_{i≠j} k(q_i, q_j)/(n(n − 1)) + Σ_{i≠j} k(p_i, p_j)/(n(n − 1)) − 2 Σ_{i,j} k(q_i, p_j)/n²`
//!
//! Where: q are the codes, p as many draws from the prior with a fixed seed, and k is the model's kernel.

use std::sync::LazyLock;

use datafusion::logical_expr::{AggregateUDF, Documentation};
use wae_core::Config;
use wae_core::objective::two_sample;

use crate::function::{MODEL_ARGUMENT, SECTION};
use crate::latent_aggregate::{LATENT_ARGUMENT, LatentAggregate, LatentStatistic};

/// The aggregate.
pub(crate) fn wae_mmd_udaf() -> AggregateUDF {
    AggregateUDF::from(LatentAggregate::<WaeMmd>::new())
}

/// Codes -> the statistic.
#[derive(Debug)]
pub(crate) struct WaeMmd;

impl LatentStatistic for WaeMmd {
    const NAME: &'static str = "wae_mmd";
    const ROWS: usize = two_sample::MMD_ROWS;

    fn documentation() -> &'static Documentation {
        &DOCUMENTATION
    }

    fn of(config: &Config, codes: &[f32]) -> Option<f64> {
        two_sample::mmd(config, codes)
    }
}

static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
    Documentation::builder(
        SECTION,
        "The unbiased MMD² of latent codes against as many seeded draws from the model's prior, with the model's kernel; \
         a Float64, negative for half of all samples from the prior itself. NULL codes are skipped; below two it is NULL. \
         Of more than 10000 codes, the 10000 with the lowest hashes of their bits are taken, whatever their order or \
         partition.",
        "wae_mmd(latent [, model])",
    )
    .with_sql_example("SELECT wae_mmd(wae_encode(image, 'fashion'), 'fashion') FROM 'images.parquet';")
    .with_argument("latent", LATENT_ARGUMENT)
    .with_argument("model", MODEL_ARGUMENT)
    .with_related_udf("wae_mmd_p_value")
    .build()
});
