//! `wae_mmd_p_value(latent [, model])`: whether codes could be draws from the model's prior.
//!
//! `p = (1 + #{b : MMD²(π_b(q, p)) ≥ MMD²(q, p)})/(1 + 999)`
//!
//! Where: π_b is one of 999 seeded permutations of the codes q and as many draws p from the prior.

use datafusion::logical_expr::AggregateUDF;
use wae_core::Config;
use wae_core::objective::two_sample;

use crate::aggregate::latent::{LatentAggregate, LatentStatistic};
use crate::documentation::{FunctionDocumentation, LATENT_ARGUMENT, MODEL_ARGUMENT};

/// The aggregate.
pub(crate) fn wae_mmd_p_value_udaf() -> AggregateUDF {
    AggregateUDF::from(LatentAggregate::new(&WaeMmdPValue))
}

/// Codes -> the statistic.
#[derive(Debug)]
struct WaeMmdPValue;

impl LatentStatistic for WaeMmdPValue {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn rows(&self) -> usize {
        two_sample::P_VALUE_ROWS
    }

    fn of(&self, config: &Config, codes: &[f32]) -> Option<f64> {
        two_sample::mmd_p_value(config, codes)
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: "wae_mmd_p_value",
    syntax: "wae_mmd_p_value(latent [, model])",
    description: "The p-value of `wae_mmd`, a Float64 from 0.001 to 1: the share of 999 seeded permutations, of the codes pooled \
         with as many draws from the prior, whose MMD² is at least the one observed, (1 + number)/1000. Codes that are \
         draws from the prior give p ≤ α with probability at most α. NULL codes are skipped; below two it is NULL. Of \
         more than 1000 codes, the 1000 with the lowest hashes of their bits are taken, whatever their order or \
         partition.",
    arguments: &[("latent", LATENT_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT wae_mmd_p_value(wae_encode(image, 'fashion'), 'fashion') FROM 'images.parquet';",
    related: &["wae_mmd"],
};
