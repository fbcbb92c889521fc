//! The report: a page about a model and a table of images.
//!
//! One HTML file without scripts and without anything from elsewhere: images are `data:` URIs, charts are SVG. Its
//! contents come from the plugin's own functions, through SQL, but for the calibration scores, which are in the model's
//! file. The same model and the same images give the same bytes, in whatever order the images come.

mod anomaly_map;
mod chart;
mod curves;
mod facts;
mod gallery;
mod histogram;
mod latent;
mod level;
mod outline;
mod page;
mod scan;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;

use self::facts::Model;
use self::level::Level;

/// Options of a [`report`].
#[derive(Debug, Clone, PartialEq)]
pub struct ReportOptions {
    /// The column of images; `image` by default.
    pub image: String,
    /// A column that names each image, or its class: shown with the strangest images, and as colours where it has few
    /// values. None by default.
    pub label: Option<String>,
    /// The highest rate of false alarms, between 0 and 1, both excluded, as in `wae_is_outlier`. `None`, the default,
    /// stands for 0.01. A model with n < 99 calibration rows has no p-value as small: there, `None` is 1/(n + 1),
    /// and the page says so. Under `wae.confidence`, it is the smallest rate that so many rows can keep.
    pub alpha: Option<f64>,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self { image: "image".to_owned(), label: None, alpha: None }
    }
}

/// A page of a [`report`]: one HTML file, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html {
    text: String,
    summary: String,
}

impl Html {
    /// The file's contents.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// One line: the number of images, and of outliers among them.
    pub fn summary(&self) -> &str {
        &self.summary
    }
}

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Makes a page about a model and a table of images, as `wae report` writes it: the number of outliers and the promise
/// of alpha, the histogram of scores, the strangest images with their strange places outlined, reconstructions and anomaly
/// maps, samples from the prior, the latent codes on two principal components, the training curves, and the model's facts.
///
/// `source` is a table, a table function, or a query in parentheses; in a context that finds files by their paths, as
/// [`session_context`](crate::session_context) makes it, also a path. It is SQL: take none from strangers. The table is
/// read once. Its 24 strangest images are on the page. The page has no scripts and loads nothing, follows the reader's
/// light or dark scheme, and gives the numbers of its charts as tables.
///
/// # Errors
/// A plan error for a model, table or column that does not exist, for a column without images, and for an alpha that is
/// no rate or that no p-value of the model can reach; an execution error for images that cannot be read, and where the
/// model is replaced meanwhile.
///
/// # Example
/// ```no_run
/// use datafusion_wae::{ReportOptions, report};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> datafusion::error::Result<()> {
/// let ctx = datafusion_wae::session_context()?;
/// let options = ReportOptions { label: Some("label".to_owned()), ..Default::default() };
/// let html = report(&ctx, "clothes", "fixtures/fashion/test.parquet", &options).await?;
/// println!("{}", html.summary());
/// std::fs::write("report.html", html.as_str())?;
/// # Ok(())
/// # }
/// ```
pub async fn report(ctx: &SessionContext, model: &str, source: &str, options: &ReportOptions) -> Result<Html> {
    let session = Session { ctx, model, source, options };
    let history = facts::history(&session).await?;
    let model = Model::read(&session)?;
    let level = Level::try_new(options.alpha, model.confidence, model.held_out())?;
    let scan = scan::scan(&session, model.score(), level).await?;
    let gallery = gallery::strangest(&session, &model, level, &scan).await?;
    let samples = gallery::samples(&session, &model).await?;
    let facts = facts::facts(&session, &model).await?;
    let summary = page::summary(scan.scores.len(), scan.outliers, level);
    let page = page::Page { session: &session, model: &model, level, facts, history, scan: &scan, gallery, samples };
    Ok(Html { text: page.html()?.into_string(), summary })
}

/// A report's queries: the context that runs them, and the arguments of [`report`].
struct Session<'a> {
    ctx: &'a SessionContext,
    model: &'a str,
    source: &'a str,
    options: &'a ReportOptions,
}

impl Session<'_> {
    /// The model's name as a literal.
    fn literal(&self) -> String {
        literal(self.model)
    }

    /// The rows of a query, all in one batch.
    async fn batch(&self, sql: &str) -> Result<RecordBatch> {
        batch(self.ctx.sql(sql).await?).await
    }
}

/// The rows of a query, all in one batch.
async fn batch(frame: DataFrame) -> Result<RecordBatch> {
    let schema = Arc::clone(frame.schema().inner());
    let batches = frame.collect().await?;
    // The batches' own: a query's plan may know less of a column than its rows do.
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    Ok(concat_batches(&schema, &batches)?)
}

/// A string as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier of SQL, as it is written.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The source as SQL takes it behind FROM: a path in quotes, anything else as it is.
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
}
