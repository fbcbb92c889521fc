//! Columns of vectors: lists of numbers, of one length or any.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, new_empty_array};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};

use crate::error::{Place, row_error};

/// The width of a column of vectors where its type tells; `None` where it does not, as of an untyped NULL.
///
/// # Errors
/// A plan error for a type that holds no vectors.
pub(crate) fn vector_width(function: &str, parameter: &str, data_type: &DataType) -> Result<Option<usize>> {
    match data_type {
        DataType::Null => Ok(None),
        DataType::FixedSizeList(item, length) if item.data_type().is_floating() => Ok(Some(*length as usize)),
        DataType::List(item) | DataType::LargeList(item) if item.data_type().is_floating() => Ok(None),
        other => plan_err!("{function}: {parameter} must be a list of numbers, got {other}"),
    }
}

/// Lists of other numbers, such as `[1, 0, 2]`, become lists of these.
pub(crate) fn coerce_vector(data_type: &DataType, number: &DataType) -> DataType {
    let mut data_type = data_type.clone();
    if let DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) = &mut data_type
        && (item.data_type().is_null() || item.data_type().is_numeric() && !item.data_type().is_floating())
    {
        *item = Arc::new(item.as_ref().clone().with_data_type(number.clone()));
    }
    data_type
}

/// The vectors of a column, in f64, which holds every value of the narrower types.
pub(crate) struct Vectors {
    column: ArrayRef,
    /// The items of all rows, end to end.
    values: Float64Array,
    /// Where the first row's items start in the column's own.
    first: usize,
}

impl Vectors {
    /// Casts the items of a column that [`vector_width`] let pass.
    pub(crate) fn try_new(function: &str, column: &ArrayRef) -> Result<Self> {
        let rows = column.len();
        let (items, first, last) = match column.data_type() {
            DataType::Null => (new_empty_array(&DataType::Float64), 0, 0),
            DataType::FixedSizeList(..) => {
                let list = column.as_fixed_size_list();
                (Arc::clone(list.values()), list.value_offset(0) as usize, list.value_offset(rows) as usize)
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>();
                (Arc::clone(list.values()), list.value_offsets()[0] as usize, list.value_offsets()[rows] as usize)
            }
            DataType::LargeList(_) => {
                let list = column.as_list::<i64>();
                (Arc::clone(list.values()), list.value_offsets()[0] as usize, list.value_offsets()[rows] as usize)
            }
            other => return exec_err!("{function}: expected a list of numbers, got {other}"),
        };
        // Of a slice, only the items in it: an aggregate with many groups gets many slices of one batch.
        let items = arrow::compute::cast(&items.slice(first, last - first), &DataType::Float64)?;
        Ok(Self { column: Arc::clone(column), values: items.as_primitive::<Float64Type>().clone(), first })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.column.len()
    }

    /// The vector of a row; `None` if it is NULL.
    ///
    /// # Errors
    /// An execution error that names the row, if an item is NULL, NaN or infinite.
    pub(crate) fn row(&self, function: &str, parameter: &str, row: usize) -> Result<Option<&[f64]>> {
        if self.column.is_null(row) {
            return Ok(None);
        }
        let (start, end) = match self.column.data_type() {
            DataType::Null => return Ok(None),
            DataType::FixedSizeList(..) => {
                let list = self.column.as_fixed_size_list();
                (list.value_offset(row) as usize, list.value_offset(row + 1) as usize)
            }
            DataType::List(_) => {
                let ends = self.column.as_list::<i32>().value_offsets();
                (ends[row] as usize, ends[row + 1] as usize)
            }
            _ => {
                let ends = self.column.as_list::<i64>().value_offsets();
                (ends[row] as usize, ends[row + 1] as usize)
            }
        };
        let start = start - self.first;
        let end = end - self.first;
        let vector = &self.values.values()[start..end];
        let has_null = self.values.nulls().is_some_and(|nulls| (start..end).any(|i| nulls.is_null(i)));
        if has_null || vector.iter().any(|v| !v.is_finite()) {
            let reason = format!("{parameter} must hold finite numbers, got NULL, NaN or an infinity");
            return Err(row_error(function, Place::Row(row), reason));
        }
        Ok(Some(vector))
    }

    /// The latent code of a row, of the model's width; `None` if it is NULL.
    ///
    /// # Errors
    /// Those of [`row`](Self::row), which a number beyond the range of f32 counts among; another width.
    pub(crate) fn code(
        &self,
        function: &str,
        parameter: &str,
        row: usize,
        model: (&str, usize),
    ) -> Result<Option<Vec<f32>>> {
        let Some(vector) = self.row(function, parameter, row)? else { return Ok(None) };
        let (name, width) = model;
        if vector.len() != width {
            let got = vector.len();
            return Err(row_error(
                function,
                Place::Row(row),
                format!("{parameter} has {got} values, model '{name}' takes {width}"),
            ));
        }
        let code: Vec<f32> = vector.iter().map(|v| *v as f32).collect();
        match code.iter().find(|v| !v.is_finite()) {
            None => Ok(Some(code)),
            Some(_) => {
                Err(row_error(function, Place::Row(row), format!("{parameter} must hold finite numbers of 32 bits")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{FixedSizeListArray, LargeListArray, ListArray};
    use arrow::datatypes::Float32Type;

    use super::*;

    /// Slices start anywhere in the items, and NULL rows may have items of their own.
    #[test]
    fn slices_of_every_kind_of_list() {
        let rows = || (0..5).map(|i| (i != 2).then(|| vec![Some(i as f32), Some(0.5)]));
        let columns: [ArrayRef; 3] = [
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows(), 2)),
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows())),
            Arc::new(LargeListArray::from_iter_primitive::<Float32Type, _, _>(rows())),
        ];
        for column in columns {
            let vectors = Vectors::try_new("f", &column.slice(1, 3)).unwrap();
            let got: Vec<_> = (0..vectors.len()).map(|row| vectors.row("f", "z", row).unwrap()).collect();
            assert_eq!(got, [Some(&[1.0, 0.5][..]), None, Some(&[3.0, 0.5][..])], "{}", column.data_type());
            assert_eq!(vectors.code("f", "z", 0, ("m", 2)).unwrap(), Some(vec![1.0, 0.5]));
            let error = vectors.code("f", "z", 2, ("m", 3)).unwrap_err().strip_backtrace();
            assert!(error.contains("f: row 2 of the batch: z has 2 values, model 'm' takes 3"), "{error}");
            assert_eq!(Vectors::try_new("f", &column.slice(1, 0)).unwrap().len(), 0);
        }
    }

    #[test]
    fn items_that_are_no_numbers() {
        for item in [None, Some(f64::NAN), Some(f64::NEG_INFINITY)] {
            let rows = [Some(vec![Some(1.0), item])];
            let column: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows));
            let error = Vectors::try_new("f", &column).unwrap().row("f", "z", 0).unwrap_err().strip_backtrace();
            assert!(error.contains("f: row 0 of the batch: z must hold finite numbers"), "{error}");
        }
        let column: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(1e300)])]));
        let error = Vectors::try_new("f", &column).unwrap().code("f", "z", 0, ("m", 1)).unwrap_err().strip_backtrace();
        assert!(error.contains("z must hold finite numbers of 32 bits"), "{error}");
    }
}
