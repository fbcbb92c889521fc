//! `pixel_auroc(map, mask)`: the area under the ROC curve of all pixels.
//!
//! `P(s₊ > s₋) + ½·P(s₊ = s₋)`
//!
//! Where: s₊ is the map's value at a random pixel of a defect, s₋ at a random pixel elsewhere, of any image.

use datafusion::logical_expr::AggregateUDF;
use wae_core::localization::{DefectMask, PixelCurve};

use crate::aggregate::map_metric::{MAP_ARGUMENT, MASK_ARGUMENT, MapAggregate, MapMetric};
use crate::documentation::FunctionDocumentation;

/// The aggregate.
pub(crate) fn pixel_auroc_udaf() -> AggregateUDF {
    AggregateUDF::from(MapAggregate::new(&PixelAuroc))
}

#[derive(Debug)]
struct PixelAuroc;

impl MapMetric for PixelAuroc {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn add(&self, curve: &mut PixelCurve, map: &[f32], mask: &DefectMask) {
        curve.add(map, mask);
    }

    fn limit(&self) -> f64 {
        1.0
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: "pixel_auroc",
    syntax: "pixel_auroc(map, mask)",
    description: "The area under the ROC curve of all pixels, a Float64: the chance that a map is higher at a pixel of a defect than \
         at one elsewhere, ties counting half. Large defects count more than small ones: see `aupro`. Rows where either \
         argument is NULL are skipped; without a pixel of a defect, or with no other, it is NULL. Exact up to 1,048,576 distinct \
         values. Beyond that, near values are ties, so that memory is bounded (about 30 MB for each group and partition, \
         and up to 100 MB for a moment while values are merged), and the result is off by some \
         millionths; the log gives the bound.",
    arguments: &[("map", MAP_ARGUMENT), ("mask", MASK_ARGUMENT)],
    example: "SELECT pixel_auroc(wae_anomaly_map(image, 'fashion'), mask) FROM 'images.parquet';",
    related: &["aupro", "auroc"],
};
