//! Rows on standard output.

use std::io::{self, Write};
use std::sync::Arc;

use clap::ValueEnum;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::util::display;
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::common::Result;
use datafusion::config::FormatOptions;
use datafusion_wae::{csv_batch, table_batch};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, as `datafusion.format.*` says; long nested and binary values are cut.
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// An object a line; of a query without rows, `[]`.
    Json,
}

/// The writer of a statement's rows to standard output: as they come, but for tables, whose columns are aligned.
pub(crate) struct Output {
    format: Format,
    /// The form of values in a table.
    options: FormatOptions,
    batches: Vec<RecordBatch>,
    schema: SchemaRef,
    /// Whether nothing has been written yet.
    empty: bool,
}

impl Output {
    pub(crate) fn new(format: Format, options: FormatOptions, schema: SchemaRef) -> Self {
        Self { format, options, batches: Vec::new(), schema, empty: true }
    }

    pub(crate) fn write(&mut self, batch: RecordBatch) -> Result<()> {
        // Rows may still come; `finish` knows whether any did.
        if batch.num_rows() == 0 { Ok(()) } else { self.write_rows(batch) }
    }

    fn write_rows(&mut self, batch: RecordBatch) -> Result<()> {
        let mut text = Vec::new();
        match self.format {
            Format::Table => self.batches.push(table_batch(&batch, &(&self.options).try_into()?)?),
            Format::Csv => {
                let mut writer = WriterBuilder::new().with_header(self.empty).build(&mut text);
                writer.write(&csv_batch(&batch)?)?;
            }
            Format::Json if batch.num_rows() == 0 => text.extend(b"[]\n"),
            Format::Json => {
                let mut writer = LineDelimitedWriter::new(&mut text);
                writer.write(&batch)?;
                writer.finish()?;
            }
        }
        self.empty = false;
        Ok(io::stdout().lock().write_all(&text)?)
    }

    /// Writes the rest; of a query without rows, the names of its columns, or `[]` in JSON. `SET` and its like have
    /// no columns.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.empty && !self.schema.fields().is_empty() {
            self.write_rows(RecordBatch::new_empty(Arc::clone(&self.schema)))?;
        }
        if !self.batches.is_empty() {
            // The names have the types already.
            let options = display::FormatOptions::try_from(&self.options)?.with_types_info(false);
            writeln!(io::stdout().lock(), "{}", pretty_format_batches_with_options(&self.batches, &options)?)?;
        }
        Ok(io::stdout().lock().flush()?)
    }
}
