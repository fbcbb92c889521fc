//! Tables in Markdown.

use serde_json::{Map, Value};

/// A row of a table.
pub fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a table: the first column is text, the others are numbers.
pub fn head(columns: &[String]) -> String {
    let rule: Vec<String> = (0..columns.len()).map(|i| if i == 0 { "---" } else { "---:" }.to_owned()).collect();
    row(columns) + &row(&rule)
}

/// A value of each of some cells.
pub fn values(cells: &[&Map<String, Value>], name: &str) -> Vec<f64> {
    cells.iter().map(|cell| cell.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN)).collect()
}

/// The mean, and from two values on the standard deviation; nothing for no values.
pub fn mean(values: &[f64], digits: usize) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    match values.len() {
        0 => String::new(),
        _ if !mean.is_finite() => String::new(),
        1 => format!("{mean:.digits$}"),
        _ => {
            let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
            format!("{mean:.digits$} ± {deviation:.digits$}")
        }
    }
}
