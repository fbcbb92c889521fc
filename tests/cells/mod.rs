//! The table *What works where?* of the guide's page `hosts.md`: a statement a row, in `cells.json`, which the tests of
//! the Python package read too.
//!
//! `{data}` is the folder of the table's files. They read the table `test` (file, label, image) with the model `m`,
//! which `wae.model` names.

use serde_json::Value;

/// The statement that has to run before the row `prepared statements`.
pub fn prepare() -> String {
    text(&file()["prepare"])
}

/// The rows of the table: what each is about, as the table's first column has it, and a statement that gives rows.
pub fn cells() -> Vec<(String, String)> {
    file()["cells"].as_array().unwrap().iter().map(|row| (text(&row[0]), text(&row[1]))).collect()
}

fn file() -> Value {
    serde_json::from_str(include_str!("cells.json")).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
