//! `wae report`: writes a page about a model and a table of images.

use std::io::{self, Write};
use std::path::PathBuf;

use datafusion::common::{Result, exec_datafusion_err};
use datafusion::prelude::SessionContext;
use datafusion_wae::ReportOptions;

/// Arguments of `wae report`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReportArguments {
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
    /// The rate of false alarms that outliers are flagged at: 0.01 by default, or 1/(n + 1) where the model has n < 99
    /// calibration rows.
    #[arg(long, value_parser = alpha)]
    alpha: Option<f64>,
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
/// Those of [`datafusion_wae::report`] and of writing the page.
pub(crate) async fn run(ctx: &SessionContext, arguments: &ReportArguments) -> Result<()> {
    let ReportArguments { image, label, alpha, .. } = arguments.clone();
    let options = ReportOptions { image, label, alpha };
    let html = datafusion_wae::report(ctx, &arguments.model, &arguments.source, &options).await?;
    let out = arguments.out.display();
    std::fs::write(&arguments.out, html.as_str()).map_err(|e| exec_datafusion_err!("report: {out}: {e}"))?;
    writeln!(io::stdout().lock(), "{out}: {}", html.summary())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lie_between_0_and_1() {
        assert_eq!(alpha("0.05"), Ok(0.05));
        for text in ["0", "1", "NaN", "-0.1", "x"] {
            assert!(alpha(text).is_err(), "{text}");
        }
    }
}
