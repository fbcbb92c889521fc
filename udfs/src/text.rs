//! Rows as text, for people to read and for CSV.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Characters of a nested or binary value that a table shows.
const CELL: usize = 60;

/// Rows for a table: values of nested and binary types are text, cut where they are long, since a table of whole images
/// helps nobody.
///
/// # Errors
/// Those of values that have no text.
pub fn table_batch(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    text_batch(rows, Some(CELL))
}

/// Rows for CSV: values of nested and binary types are text, for which it has no form.
///
/// # Errors
/// Those of values that have no text.
pub fn csv_batch(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    text_batch(rows, None)
}

/// A batch whose nested and binary columns are text, cut to a number of characters.
fn text_batch(batch: &RecordBatch, cut: Option<usize>) -> Result<RecordBatch, ArrowError> {
    let is_wide =
        |t: &DataType| t.is_nested() || matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if is_wide(field.data_type()) {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(Arc::new(text_column(column, cut)?));
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn text_column(column: &ArrayRef, cut: Option<usize>) -> Result<StringArray, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let cell = |row: usize| {
        let text = formatter.value(row).try_to_string()?;
        Ok(match cut {
            Some(most) if text.chars().count() > most => text.chars().take(most - 1).chain(['…']).collect(),
            _ => text,
        })
    };
    (0..column.len()).map(|row| column.is_valid(row).then(|| cell(row)).transpose()).collect()
}
