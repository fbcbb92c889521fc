//! The shell: the dialect and encoding of statements, and the form of tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;
use tempfile::TempDir;

/// A script in the dialect that it sets.
const SCRIPT: &str = "SET datafusion.sql_parser.dialect = 'duckdb'; SELECT array_transform([2, 4], x -> x / 2)";

/// Standard output of the shell, or standard error if it fails.
fn wae(dir: &Path, arguments: &[&str], input: &[u8]) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wae"));
    command.current_dir(dir).env("HOME", dir).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shell that is done may not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The last cell of a table of one column.
fn last_cell(table: &str) -> &str {
    table.lines().rev().find_map(|line| line.strip_prefix('|')).unwrap().trim_matches([' ', '|'])
}

#[test]
fn statements_are_read_in_the_dialect_that_is_set() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("script.sql"), SCRIPT).unwrap();
    let (set, select) = SCRIPT.split_once(';').unwrap();
    for (arguments, input) in [
        (&["-c", set, select][..], ""),
        (&["-c", SCRIPT], ""),
        (&["-f", "script.sql"], ""),
        (&[], SCRIPT),
        (&[], &SCRIPT.replace("; ", ";\n")),
    ] {
        let output = wae(dir.path(), arguments, input.as_bytes()).unwrap();
        assert!(output.contains("[1, 2]") || output.contains("[1.0, 2.0]"), "{arguments:?}: {output}");
    }
    let reset = format!("{SCRIPT}; RESET datafusion.sql_parser.dialect; SELECT x -> x");
    assert!(wae(dir.path(), &["-c", &reset], b"").is_err());
}

#[test]
fn nothing_runs_of_a_script_with_a_mistake() {
    let dir = TempDir::new().unwrap();
    let error = wae(dir.path(), &["-c", "COPY (SELECT 1 AS a) TO 'a.csv'; SELEC 1"], b"").unwrap_err();
    assert!(error.contains("SELEC"), "{error}");
    assert!(!dir.path().join("a.csv").exists());
}

#[rstest]
#[case::none("SELECT 1")]
#[case::before_a_statement("\u{feff}SELECT 1")]
#[case::before_lines("\u{feff}SELECT\r\n1;\r\n")]
fn a_byte_order_mark_is_skipped(#[case] sql: &str) {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("script.sql"), sql).unwrap();
    for (arguments, input) in [(&["-f", "script.sql"][..], ""), (&["-c", sql], ""), (&[], sql)] {
        assert_eq!(last_cell(&wae(dir.path(), arguments, input.as_bytes()).unwrap()), "1", "{arguments:?}");
    }
}

#[test]
fn another_encoding_is_named() {
    let dir = TempDir::new().unwrap();
    let script: Vec<u8> = "\u{feff}SELECT 1;\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(dir.path().join("script.sql"), &script).unwrap();
    let error = wae(dir.path(), &["-f", "script.sql"], b"").unwrap_err();
    assert!(error.contains("script.sql is a text in UTF-16, expected UTF-8: save it as UTF-8"), "{error}");
    let error = wae(dir.path(), &[], &script).unwrap_err();
    assert!(error.contains("standard input is a text in UTF-16"), "{error}");
    let error = wae(dir.path(), &[], b"SELECT '\xe9';").unwrap_err();
    assert!(error.contains("standard input is no text in UTF-8"), "{error}");
}

#[test]
fn tables_follow_the_format_that_is_set() {
    let dir = TempDir::new().unwrap();
    let sql = "SET datafusion.format.null = 'nothing'; SET datafusion.format.types_info = true;
               SET datafusion.format.date_format = '%d.%m.%Y';
               SELECT NULL::INT AS i, DATE '2024-03-01' AS d, [DATE '2024-03-01', NULL] AS l";
    let output = wae(dir.path(), &["-c", sql], b"").unwrap();
    for part in ["| nothing |", "| 01.03.2024 |", "[01.03.2024, nothing]", "| Int32   |", "| List(Date32)"] {
        assert!(output.contains(part), "{part}\n{output}");
    }
}

#[test]
fn the_home_folder_is_a_tilde() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("photos")).unwrap();
    std::fs::write(dir.path().join("photos/1.png"), "").unwrap();
    for pattern in ["~/photos/*.png", "~/photos/1.png", "~/photos/{1,2}.png"] {
        let output = wae(dir.path(), &["-c", &format!("SELECT path FROM read_images('{pattern}')")], b"").unwrap();
        assert_eq!(last_cell(&output), dir.path().join("photos/1.png").display().to_string());
    }
    let error = wae(dir.path(), &["-c", "SELECT * FROM read_images('~')"], b"").unwrap_err();
    assert!(error.contains("no file matches '~', which is a folder"), "{error}");
}
