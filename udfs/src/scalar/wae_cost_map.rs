//! `wae_cost_map(image [, model])`: the term of each pixel in the reconstruction cost.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use crate::columns::map_field;
use crate::documentation::{FunctionDocumentation, IMAGE_ARGUMENT, MODEL_ARGUMENT};
use crate::options::WaeOptions;
use crate::scalar::args::{Batch, PlannedArgs};
use crate::scalar::function::KernelFunction;
use crate::scalar::kernel::{KnownCall, ScalarKernel};
use crate::scalar::pass::Outputs;

const NAME: &str = "wae_cost_map";

/// The function under a session's options.
pub(crate) fn wae_cost_map_udf(options: &WaeOptions) -> ScalarUDF {
    KernelFunction::udf(&WaeCostMap, options)
}

#[derive(Debug)]
struct WaeCostMap;

impl ScalarKernel for WaeCostMap {
    fn documentation(&self) -> &'static FunctionDocumentation {
        &DOCUMENTATION
    }

    fn outputs(&self, _: &KnownCall<'_>) -> Outputs {
        Outputs::COST_MAP
    }

    fn field(&self, args: &PlannedArgs<'_>) -> Result<Field> {
        args.check_image()?;
        Ok(map_field(NAME, args.model()))
    }

    fn run(&self, batch: &Batch<'_>) -> Result<ArrayRef> {
        batch.pass()?.cost_map()
    }
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_cost_map(image [, model])",
    description: "What each pixel adds to the reconstruction cost, summed over channels: a Float32 tensor, height x width, whose values \
         sum to `wae_reconstruction_cost`; for a model of cost 'l2', to its square. With a `backbone` it is of that network's input size, and a place's term is \
         divided evenly among its pixels.",
    arguments: &[("image", IMAGE_ARGUMENT), ("model", MODEL_ARGUMENT)],
    example: "SELECT wae_cost_map(image, 'fashion') AS map FROM 'images.parquet' ORDER BY wae_p_value(image, 'fashion') LIMIT 10;",
    related: &["wae_reconstruction_cost", "wae_anomaly_map"],
};
