//! The aggregates, a file each; here the states that hold a list.

mod aupro;
mod auroc;
mod average_precision;
mod frechet_distance;
pub(crate) mod image_stitch;
pub(crate) mod latent;
pub(crate) mod map_metric;
mod pixel_auroc;
mod ranking;
mod wae_mmd;
mod wae_mmd_p_value;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, LargeListArray, PrimitiveArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::AggregateUDF;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::format_state_name;

/// The aggregates.
pub(crate) fn all() -> Vec<AggregateUDF> {
    vec![
        auroc::auroc_udaf(),
        average_precision::average_precision_udaf(),
        pixel_auroc::pixel_auroc_udaf(),
        aupro::aupro_udaf(),
        wae_mmd::wae_mmd_udaf(),
        wae_mmd_p_value::wae_mmd_p_value_udaf(),
        frechet_distance::frechet_distance_udaf(),
        image_stitch::image_stitch_udaf(),
    ]
}

/// Refuses DISTINCT, which would silently change a statistic of rows.
pub(crate) fn refuse_distinct(function: &str, args: &AccumulatorArgs<'_>) -> Result<()> {
    if args.is_distinct {
        return plan_err!("{function}: DISTINCT is not supported, expected a subquery with SELECT DISTINCT");
    }
    Ok(())
}

/// The field of a list in an accumulator's state. Its offsets have 64 bits: the states of all groups stand in one
/// array.
pub(crate) fn list_state(function: &str, name: &str, item: DataType) -> FieldRef {
    let list = DataType::LargeList(Arc::new(Field::new_list_field(item, true)));
    Arc::new(Field::new(format_state_name(function, name), list, true))
}

/// Values as a list in an accumulator's state.
pub(crate) fn list_value<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> Result<ScalarValue> {
    let item = Arc::new(Field::new_list_field(T::DATA_TYPE, true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    let values = PrimitiveArray::<T>::new(values.into(), None);
    Ok(ScalarValue::LargeList(Arc::new(LargeListArray::try_new(item, offsets, Arc::new(values), None)?)))
}

/// The lists of a column of states.
pub(crate) fn lists<T: ArrowPrimitiveType>(
    function: &str,
    states: &[ArrayRef],
    index: usize,
) -> Result<Vec<PrimitiveArray<T>>> {
    let Some(list) = states.get(index).and_then(|state| state.as_list_opt::<i64>()) else {
        return exec_err!("{function}: a state without its list {index}");
    };
    let mut lists = Vec::with_capacity(list.len());
    for row in 0..list.len() {
        match list.value(row).as_primitive_opt::<T>() {
            Some(values) => lists.push(values.clone()),
            None => return exec_err!("{function}: a state whose list {index} holds no {}", T::DATA_TYPE),
        }
    }
    Ok(lists)
}
