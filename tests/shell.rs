//! The shell: where statements come from, in which dialect and encoding, what it prints, and what its log says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;
use tempfile::TempDir;

const TEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion/test.parquet");

/// A script in the dialect that it sets.
const SCRIPT: &str = "SET datafusion.sql_parser.dialect = 'duckdb'; SELECT array_transform([2, 4], x -> x / 2)";

/// Runs the shell in a folder, maybe on kernels of some instructions (`WAE_KERNELS`); gives its exit code, standard output
/// and standard error.
fn run(dir: &Path, arguments: &[&str], input: &[u8], kernels: Option<&str>) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wae"));
    command.current_dir(dir).env("HOME", dir).env("RUST_LOG", "warn").args(arguments);
    command.envs(kernels.map(|name| ("WAE_KERNELS", name)));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A shell that is done may not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs the shell in a folder of its own.
fn shell(arguments: &[&str]) -> (i32, String, String) {
    run(TempDir::new().unwrap().path(), arguments, b"", None)
}

/// Standard output of the shell, or standard error if it fails.
fn wae(dir: &Path, arguments: &[&str], input: &[u8]) -> Result<String, String> {
    match run(dir, arguments, input, None) {
        (0, stdout, _) => Ok(stdout),
        (_, _, stderr) => Err(stderr),
    }
}

/// The last cell of a table of one column.
fn last_cell(table: &str) -> &str {
    table.lines().rev().find_map(|line| line.strip_prefix('|')).unwrap().trim_matches([' ', '|'])
}

/// DataFusion folds the list of an EXECUTE before it brings the items to one type, and Arrow panics over them.
#[test]
fn a_panic_ends_its_statement_alone() {
    let (code, _, stderr) = shell(&["-c", "PREPARE q AS SELECT $1; EXECUTE q([0.5, 1])"]);
    assert_eq!(code, 1, "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("Execution error: a library that runs the statement has failed: "), "{stderr}");
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

#[test]
fn statements_run_up_to_the_first_that_fails() {
    let sql = "SELECT 1 AS a, 'x;y' AS b; -- a comment;\nSELECT a FROM (VALUES (2)) AS t(a)";
    let (code, stdout, stderr) = shell(&["--format", "csv", "-c", sql]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "a,b\n1,x;y\na\n2\n", ""));

    let sql = format!("SELECT wae_encode(image, 'nope') FROM '{TEST}'");
    let (code, stdout, stderr) = shell(&["--format", "json", "-c", "SELECT 1 AS a", &sql, "SELECT 2 AS a"]);
    assert_eq!((code, stdout.as_str()), (1, "{\"a\":1}\n"));
    assert!(stderr.contains("wae_encode: no model 'nope': there is no folder 'models'"), "{stderr}");
}

#[test]
fn wide_cells_are_cut_and_empty_tables_name_the_columns_of_no_rows() {
    let (code, stdout, _) = shell(&["-c", &format!("SELECT image['bytes'] AS png FROM '{TEST}' LIMIT 1")]);
    assert_eq!(code, 0);
    assert!(stdout.lines().all(|line| line.chars().count() <= 64) && stdout.contains("89504e47"), "{stdout}");
    let (_, stdout, _) = shell(&["-c", "SELECT 1 AS a WHERE false"]);
    assert!(stdout.contains("| a |"), "{stdout}");
    let (_, stdout, _) = shell(&["--format", "json", "-c", "SELECT 1 AS a WHERE false"]);
    assert_eq!(stdout, "[]\n");
    for format in ["table", "json"] {
        let (code, stdout, _) = shell(&["--format", format, "-c", "SET wae.batch_size = 5", "-- nothing"]);
        assert_eq!((code, stdout.as_str()), (0, ""));
    }
}

#[rstest]
#[case::without_a_semicolon("SELECT 1 AS a", 0, "a\n1\n", "")]
#[case::over_lines("SELECT 1 AS a; SELECT 'x;\ny' AS b -- ;\n;SELECT\n3 AS c", 0, "a\n1\nb\n\"x;\ny\"\nc\n3\n", "")]
#[case::up_to_the_first_that_fails("SELECT 1 AS a;\nSELECT b;\nSELECT 3 AS c;\n", 1, "a\n1\n", "No field named b")]
#[case::cut_off("SELECT 'a", 1, "", "Unterminated string literal")]
#[case::quit("SELECT 1 AS a;\n\\q\nSELECT 2 AS b;\n", 0, "a\n1\n", "")]
#[case::nothing("", 0, "", "")]
fn statements_are_taken_from_a_pipe(
    #[case] input: &str,
    #[case] code: i32,
    #[case] stdout: &str,
    #[case] stderr: &str,
) {
    let dir = TempDir::new().unwrap();
    let (got_code, got_stdout, got_stderr) = run(dir.path(), &["--format", "csv"], input.as_bytes(), None);
    assert_eq!((got_code, got_stdout.as_str()), (code, stdout), "{got_stderr}");
    assert!(got_stderr.contains(stderr) && got_stderr.is_empty() == stderr.is_empty(), "{got_stderr}");
}

#[test]
fn unreadable_images_are_one_warning_a_batch() {
    let rows = "(VALUES ('no image'), ('nor this'), (NULL)) AS t(text)";
    let sql = format!("SELECT count(image_decode(CAST(text AS BYTEA))) AS n FROM {rows}");
    let (code, stdout, stderr) = shell(&["--format", "csv", "-c", "SET wae.on_error = 'null'", &sql]);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (0, "n\n0\n", 1), "{stderr}");
    let warning = "image_decode: 2 of 2 images could not be read and are NULL; the first: row 0 of the batch: ";
    assert!(stderr.contains(warning), "{stderr}");
}

/// The portable kernels have no bf16 on any processor: two models are read, and the log says once what computes.
#[test]
fn a_processor_without_bf16_computes_in_f32_and_says_so_once() {
    let train = |name: &str| {
        format!(
            "SELECT epoch FROM wae_train((SELECT image FROM '{TEST}' LIMIT 50), model => '{name}', network => '4',
                 epochs => 1, batch_size => 10)"
        )
    };
    let codes = format!("SELECT wae_encode(image, 'a') AS a, wae_encode(image, 'b') AS b FROM '{TEST}' LIMIT 3");
    let statements = [&train("a"), &train("b"), &codes, "SET wae.precision = 'bf16'", &codes];
    let arguments = [&["--format", "csv", "-c"], statements.as_slice()].concat();
    let dir = TempDir::new().unwrap();
    let (code, stdout, stderr) = run(dir.path(), &arguments, b"", Some("portable"));
    assert_eq!(code, 0, "{stderr}");
    // Each query's header and three rows.
    let (_, codes) = stdout.split_once("a,b\n").unwrap();
    let (in_f32, in_bf16) = codes.split_once("a,b\n").unwrap();
    assert_eq!((in_f32.lines().count(), in_f32), (3, in_bf16));
    let warning = "precision bf16 computes in f32: this processor has no AVX512_BF16";
    assert_eq!((stderr.lines().count(), stderr.matches(warning).count()), (1, 1), "{stderr}");
}
