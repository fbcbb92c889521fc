//! The SQL reference as Markdown: the guide's page `reference.md` holds it between two markers, and a
//! test holds it current.

use std::fmt::Write;

use datafusion::config::ExtensionOptions;
use datafusion::logical_expr::Documentation;
use wae_core::config::OPTIONS;

use crate::options::WaeOptions;
use crate::table;
use crate::{all_aggregates, all_functions, all_window_functions};

/// The reference of everything that the plugin adds to SQL, in Markdown: scalar, aggregate and window functions from
/// their [`Documentation`], table functions, the options of `wae_train`, and the session options with their defaults.
///
/// # Example
/// ```
/// assert!(datafusion_wae::sql_reference().contains("#### `wae_encode(image [, model])`"));
/// ```
pub fn sql_reference() -> String {
    let mut text = "### Scalar functions\n".to_owned();
    all_functions().iter().filter_map(|f| f.documentation()).for_each(|page| text += &function_entry(page));
    text += "\n### Aggregates\n";
    all_aggregates().iter().filter_map(|f| f.documentation()).for_each(|page| text += &function_entry(page));
    text += "\n### Window functions\n";
    all_window_functions().iter().filter_map(|f| f.documentation()).for_each(|page| text += &function_entry(page));
    text += "\n### Table functions\n";
    for function in table::ALL {
        text += &function_entry(&function.documentation.page());
    }
    text += "\n### Options of `wae_train`\n\n| option | default | values |\n| --- | --- | --- |\n";
    for option in OPTIONS {
        let default = option.default_sql().map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}` | {default} | {} |", option.name, option.documentation);
    }
    text += "\n### Session options\n\n| option | default | meaning |\n| --- | --- | --- |\n";
    for entry in WaeOptions::default().entries() {
        let value = entry.value.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        let _ = writeln!(text, "| `{}` | {value} | {} |", entry.key, entry.description);
    }
    text
}

fn function_entry(documentation: &Documentation) -> String {
    let mut arguments = String::new();
    for (name, text) in documentation.arguments.iter().flatten() {
        let _ = writeln!(arguments, "- `{name}`: {text}");
    }
    let gap = if arguments.is_empty() { "" } else { "\n" };
    let Documentation { syntax_example, description, .. } = documentation;
    let example = documentation.sql_example.as_deref().unwrap_or_default();
    format!("\n#### `{syntax_example}`\n\n{description}\n{gap}{arguments}\nExample: `{example}`\n")
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn every_function_has_arguments_and_an_example_that_parses() {
        let scalars = all_functions();
        let aggregates = all_aggregates();
        let windows = all_window_functions();
        let scalars = scalars.iter().map(|f| (f.name(), f.documentation()));
        let aggregates = aggregates.iter().map(|f| (f.name(), f.documentation()));
        let windows = windows.iter().map(|f| (f.name(), f.documentation()));
        for (name, documentation) in scalars.chain(aggregates).chain(windows) {
            let documentation = documentation.unwrap_or_else(|| panic!("{name} has none"));
            assert!(documentation.syntax_example.starts_with(name));
            assert!(documentation.arguments.as_ref().is_some_and(|a| !a.is_empty()), "{name}");
            let example = documentation.sql_example.as_deref().unwrap_or_else(|| panic!("{name}"));
            DFParser::parse_sql(example).unwrap_or_else(|e| panic!("{example}: {e}"));
        }
        for function in table::ALL {
            let documentation = &function.documentation;
            assert!(documentation.syntax.starts_with(function.name()));
            DFParser::parse_sql(documentation.example).unwrap_or_else(|e| panic!("{}: {e}", documentation.example));
        }
    }
}
