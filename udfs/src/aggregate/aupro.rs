//! `aupro(map, mask)`: the area under the curve of per-region overlap, up to a rate of false positives of 0.3.
//!
//! `(1/0.3) ∫₀^0.3 PRO dF`
//!
//! Where: at a threshold t, F is the share of pixels outside of all masks whose value is at least t, and PRO is the share
//! of the pixels of a connected region of a mask whose value is, averaged over the regions of all masks. The curve goes
//! straight from each threshold to the next.
//!
//! # Source
//! Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 129 (2021), section 6.

use datafusion::logical_expr::AggregateUDF;
use wae_core::localization::{DefectMask, PixelCurve};

use crate::aggregate::map_metric::{MAP_ARGUMENT, MASK_ARGUMENT, MapAggregate, MapMetric};
use crate::documentation::FunctionDocumentation;

/// The aggregate.
pub(crate) fn aupro_udaf() -> AggregateUDF {
    AggregateUDF::from(MapAggregate::new(&Aupro))
}

#[derive(Debug)]
struct Aupro;

impl MapMetric for Aupro {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn add(&self, curve: &mut PixelCurve, map: &[f32], mask: &DefectMask) {
        curve.add_regions(map, mask);
    }

    fn limit(&self) -> f64 {
        0.3
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: "aupro",
    syntax: "aupro(map, mask)",
    description: "The area under the curve of per-region overlap by the rate of false positives, from 0 to 0.3, over 0.3; a Float64 \
         from 0 to 1, where 0.15 is what a map without any information gets. Each connected region of a mask (pixels that touch \
         at a corner are connected) counts alike, whatever its size. Rows where either argument is NULL are skipped; without a \
         defect, or without a pixel elsewhere, it is NULL. Exact up to 1,048,576 distinct values, and within some millionths \
         beyond, as `pixel_auroc`.",
    arguments: &[("map", MAP_ARGUMENT), ("mask", MASK_ARGUMENT)],
    example: "SELECT kind, aupro(wae_anomaly_map(image, 'fashion'), mask) FROM 'images.parquet' GROUP BY kind;",
    related: &["pixel_auroc"],
};
