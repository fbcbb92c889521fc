//! Rows as text, for people to read and for CSV.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Characters of a nested or binary value that a table shows.
const CELL: usize = 60;

/// Rows for a table: values of nested and binary types are text, cut where they are long, since a table of whole images
/// helps nobody. Where the options ask for types, the names of columns have them in a second line.
///
/// # Errors
/// Those of values that have no text.
pub fn table_batch(rows: &RecordBatch, options: &FormatOptions<'_>) -> Result<RecordBatch, ArrowError> {
    text_batch(rows, Some(CELL), options)
}

/// Rows for CSV: values of nested and binary types are text, for which it has no form.
///
/// # Errors
/// Those of values that have no text.
pub fn csv_batch(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    text_batch(rows, None, &FormatOptions::default())
}

/// A batch whose nested and binary columns are text, cut to a number of characters.
fn text_batch(batch: &RecordBatch, cut: Option<usize>, options: &FormatOptions<'_>) -> Result<RecordBatch, ArrowError> {
    let is_wide =
        |t: &DataType| t.is_nested() || matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView);
    let (mut fields, mut columns): (Vec<Arc<Field>>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let mut shown = field.as_ref().clone();
        if options.types_info() {
            shown.set_name(format!("{}\n{}", field.name(), field.data_type()));
        }
        if is_wide(field.data_type()) {
            fields.push(Arc::new(Field::new(shown.name(), DataType::Utf8, true)));
            columns.push(Arc::new(text_column(column, cut, options)?));
        } else {
            fields.push(Arc::new(shown));
            columns.push(Arc::clone(column));
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn text_column(column: &ArrayRef, cut: Option<usize>, options: &FormatOptions<'_>) -> Result<StringArray, ArrowError> {
    let formatter = ArrayFormatter::try_new(column, options)?;
    let cell = |row: usize| {
        let text = formatter.value(row).try_to_string()?;
        Ok(match cut {
            Some(most) if text.chars().count() > most => text.chars().take(most - 1).chain(['…']).collect(),
            _ => text,
        })
    };
    (0..column.len()).map(|row| column.is_valid(row).then(|| cell(row)).transpose()).collect()
}
