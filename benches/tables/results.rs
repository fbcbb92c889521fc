//! The results file: a JSON object a line, of which all but `values` and `seconds` identify the cell.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::Result;

/// The cells that are finished, and the file that they stand in.
pub struct Results {
    file: File,
    /// Identities and values.
    cells: Vec<(Value, Map<String, Value>)>,
    /// Cells that were added.
    pub computed: usize,
}

impl Results {
    /// Reads the file; makes it where there is none.
    pub fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let text = fs::read_to_string(path)?;
        // A line that a crash cut off is no cell; the next must not be joined to it.
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(file)?;
        }
        let cells = text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter_map(split).collect();
        Ok(Self { file, cells, computed: 0 })
    }

    /// The values of a cell, if it is finished.
    pub fn get(&self, identity: &Value) -> Option<&Map<String, Value>> {
        // The last, should a cell stand in the file twice.
        self.cells.iter().rev().find(|(cell, _)| cell == identity).map(|(_, values)| values)
    }

    /// Writes a cell down, before anything else is computed.
    pub fn add(&mut self, identity: Value, values: &[(&str, f64)], started: Instant) -> Result<()> {
        // JSON has no NaN: it becomes null, which reads as NaN again.
        let values: Map<String, Value> =
            values.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let mut line = identity.clone();
        line["values"] = Value::Object(values.clone());
        line["seconds"] = json!((started.elapsed().as_secs_f64() * 10.0).round() / 10.0);
        writeln!(self.file, "{line}")?;
        self.file.flush()?;
        println!("{line}");
        self.cells.push((identity, values));
        self.computed += 1;
        Ok(())
    }
}

/// A line's identity and values.
fn split(mut line: Value) -> Option<(Value, Map<String, Value>)> {
    let object = line.as_object_mut()?;
    object.remove("seconds");
    let Some(Value::Object(values)) = object.remove("values") else { return None };
    Some((line, values))
}
