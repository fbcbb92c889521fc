//! Parts of the documentation that tests write: each stands between two markers that name the test.

use std::fs;
use std::path::Path;

/// Compares a part of a page with what the code gives; under `UPDATE_README=1` writes it anew.
///
/// `test` is the test's name to Cargo, `page` a path from the repository's root.
pub fn check(test: &str, page: &str, part: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let text = fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- {part}: written by tests/{test}.rs -->\n");
    let end = format!("<!-- end of {part} -->\n");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} lacks {begin}"));
    let (written, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} lacks {end}"));
    let generated = format!("\n{generated}\n");
    if written == generated {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some_and(|v| v == "1") {
        fs::write(&path, format!("{before}{begin}{generated}{end}{after}")).unwrap();
        return;
    }
    let line = written.lines().zip(generated.lines()).find(|(old, new)| old != new);
    let (old, new) = line.unwrap_or(("(the shorter of the two ends)", "(the shorter of the two ends)"));
    panic!(
        "the {part} in {page} is not that of the code; UPDATE_README=1 cargo test --test {test} writes it anew.\n\
         First difference:\n  {page}: {old}\n  code: {new}"
    );
}
