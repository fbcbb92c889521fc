//! `wae report`: a page about a model and a table of images.
//!
//! One HTML file without scripts and without anything from elsewhere: images are `data:` URIs, charts are SVG. Everything
//! on it comes from the plugin's own functions, through SQL, but for the held-out costs, which are in the model's file.
//! The same model and the same images give the same bytes, in whatever order the images come.

mod anomaly_map;
mod chart;
mod curves;
mod facts;
mod gallery;
mod histogram;
mod latent;
mod page;
mod scan;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::prelude::SessionContext;

use self::facts::Model;

/// What a report is about.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The model's name.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The images: a path, a table, a table function, or a query in parentheses.
    #[arg(long, value_name = "TABLE")]
    source: String,
    /// The column of images.
    #[arg(long, value_name = "COLUMN", default_value = "image")]
    image: String,
    /// A column that names each image, or its class: shown with the strangest, and as colours where its values are few.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The rate of false alarms that outliers are flagged at.
    #[arg(long, default_value_t = 0.01, value_parser = alpha)]
    alpha: f64,
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Statements to run first, such as SET and CREATE EXTERNAL TABLE.
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    pub(crate) commands: Vec<String>,
}

fn alpha(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(alpha) if alpha > 0.0 && alpha < 1.0 => Ok(alpha),
        _ => Err("expected a number between 0 and 1".to_owned()),
    }
}

/// Writes the report and says where.
///
/// # Errors
/// Those of the queries, of reading the model's file and of writing the page.
pub(crate) async fn run(ctx: &SessionContext, arguments: &Arguments) -> Result<()> {
    let session = Session { ctx, model: &arguments.model };
    let history = facts::history(&session).await?;
    let model = Model::read(&session)?;
    let level = model.held_out().map(|_| arguments.alpha);
    let scan = scan::scan(&session, arguments, level).await?;
    let gallery = gallery::strangest(&session, &model, &scan).await?;
    let samples = gallery::samples(&session, &model).await?;
    let facts = facts::facts(&session, &model).await?;
    let page = page::Page { arguments, model: &model, facts, history, scan: &scan, gallery, samples };
    let out = arguments.out.display();
    std::fs::write(&arguments.out, page.html()?.into_string())
        .map_err(|e| exec_datafusion_err!("report: {out}: {e}"))?;
    writeln!(io::stdout().lock(), "{out}: {}", page::summary(scan.costs.len(), scan.outliers, arguments.alpha))?;
    Ok(())
}

/// Where queries run, and about which model.
struct Session<'a> {
    ctx: &'a SessionContext,
    model: &'a str,
}

impl Session<'_> {
    /// The model's name as a literal.
    fn literal(&self) -> String {
        literal(self.model)
    }

    /// The rows of a query, all in one batch.
    async fn batch(&self, sql: &str) -> Result<RecordBatch> {
        let frame = self.ctx.sql(sql).await?;
        let schema = std::sync::Arc::clone(frame.schema().inner());
        let batches = frame.collect().await?;
        // The batches' own: a query's plan may know less of a column than its rows do.
        let schema = batches.first().map_or(schema, RecordBatch::schema);
        Ok(concat_batches(&schema, &batches)?)
    }
}

/// A string as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier of SQL, as it is written.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What stands behind FROM: a path in quotes, anything else as it is.
fn relation(source: &str) -> String {
    let source = source.trim();
    let is_sql = source.starts_with(['(', '\'', '"']) || source.ends_with(')');
    if !is_sql && (source.contains(['/', '\\']) || Path::new(source).exists()) {
        return literal(source);
    }
    source.to_owned()
}

fn engine_error(error: wae_core::Error) -> DataFusionError {
    exec_datafusion_err!("report: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(identifier("a \"b\""), "\"a \"\"b\"\"\"");
        for (source, sql) in [
            ("a/b c.parquet", "'a/b c.parquet'"),
            ("s3://bucket/it's.parquet", "'s3://bucket/it''s.parquet'"),
            ("Cargo.toml", "'Cargo.toml'"),
            ("images", "images"),
            (" schema.images ", "schema.images"),
            ("'a/b.parquet'", "'a/b.parquet'"),
            ("(SELECT * FROM 'a/b.parquet')", "(SELECT * FROM 'a/b.parquet')"),
            ("read_images('a/*.png')", "read_images('a/*.png')"),
        ] {
            assert_eq!(relation(source), sql);
        }
    }

    #[test]
    fn levels_lie_between_0_and_1() {
        assert_eq!(alpha("0.05"), Ok(0.05));
        for text in ["0", "1", "NaN", "-0.1", "x"] {
            assert!(alpha(text).is_err(), "{text}");
        }
    }
}
