//! `wae report` on the fixture: the page is well-formed, complete, needs nothing from elsewhere, and a browser opens
//! it.
//!
//! The browser is the one that `WAE_CHROMIUM` names, or `chromium` or `chromium-browser` on the PATH; without one, that
//! part says `skipped` and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion_wae::ReportOptions;
use session::{TEST, TRAIN, query};
use tempfile::TempDir;

/// Runs the shell in a folder, which holds the models.
fn wae(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wae")).current_dir(dir).args(arguments).output().unwrap()
}

/// The shell's standard output; it must have succeeded.
fn stdout(dir: &Path, arguments: &[&str]) -> String {
    let output = wae(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with the small model `clothes`, trained on 600 images with some held out.
fn trained(options: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let sql = format!(
        "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label IN (0, 1, 2) LIMIT 600),
                                     model => 'clothes', network => '8,16', epochs => 2, {options})"
    );
    stdout(dir.path(), &["-c", &sql]);
    dir
}

/// Writes a report and reads it.
fn report(dir: &Path, arguments: &[&str]) -> (String, String) {
    let line = stdout(dir, &[&["report", "--model", "clothes"], arguments].concat());
    (line, std::fs::read_to_string(dir.join("report.html")).unwrap())
}

/// Elements that have no end.
const VOID: [&str; 4] = ["meta", "img", "br", "link"];

/// Checks that elements are closed in the reverse order of their beginning, that attributes are quoted, and that `&`
/// and `<` are escaped. Returns the attributes of all elements.
fn check_form(html: &str) -> Vec<(String, String)> {
    let mut open = Vec::new();
    let mut attributes = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
    while let Some(start) = rest.find('<') {
        check_entities(&rest[..start]);
        let end = start + tag_end(&rest[start..]);
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "</{name}>");
            continue;
        }
        let (name, text) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "<{tag}>");
        attributes.extend(split_attributes(text));
        if name == "style" {
            rest = &rest[rest.find("</style>").expect("</style>")..];
        }
        if !VOID.contains(&name) {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "open at the end: {open:?}, {rest}");
    attributes
}

/// The end of a tag: the first `>` outside quotes.
fn tag_end(text: &str) -> usize {
    let mut quoted = false;
    let end = text.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '>' && !quoted
    });
    end.expect("the end of a tag").0
}

fn split_attributes(mut text: &str) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    while !text.trim().is_empty() {
        let (name, after) = text.trim_start().split_once("=\"").unwrap_or_else(|| panic!("an attribute: {text}"));
        let (value, after) = after.split_once('"').expect("the end of an attribute");
        assert!(!name.contains(' ') && !value.contains('<'), "{name}=\"{value}\"");
        check_entities(value);
        attributes.push((name.to_owned(), value.to_owned()));
        text = after;
    }
    attributes
}

fn check_entities(text: &str) {
    for (at, _) in text.match_indices('&') {
        let entity = &text[at..];
        assert!(["&amp;", "&lt;", "&gt;", "&quot;"].iter().any(|e| entity.starts_with(e)), "{entity}");
    }
    assert!(!text.contains('>'), "{text}");
}

#[test]
fn the_page_is_complete_and_stands_alone() {
    let dir = trained("holdout => 0.2");
    let arguments = ["--source", TEST, "--label", "label", "--alpha", "0.05"];
    let (line, html) = report(dir.path(), &arguments);
    assert!(
        line.starts_with("report.html: ") && line.contains(" of 1,500 images are outliers at alpha = 0.05"),
        "{line}"
    );

    let attributes = check_form(&html);
    let values = |name: &str| attributes.iter().filter(|a| a.0 == name).map(|a| a.1.as_str()).collect::<Vec<_>>();
    assert!(
        values("src").len() == 1 + 24 * 3 + 32 && values("src").iter().all(|v| v.starts_with("data:image/png;base64,"))
    );
    assert!(values("href").iter().all(|v| v.starts_with('#')), "{:?}", values("href"));
    assert_eq!(values("alt").len(), values("src").len());
    assert!(values("alt").iter().all(|alt| !alt.is_empty()));
    for forbidden in ["http:", "https:", "<script", "javascript:", "url(", "@import"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    let mut ids = values("id");
    for id in ["outliers", "strangest", "samples", "latent", "training"] {
        assert!(ids.contains(&id) && values("href").contains(&format!("#{id}").as_str()), "{id}");
    }
    for chart in ["scores", "map", "map-by-label", "training-cost", "training-divergence"] {
        assert!(ids.contains(&format!("{chart}-title").as_str()), "{chart}");
    }
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "an id twice: {ids:?}");

    // The facts, as SQL gives them.
    let (outliers, _) = line.split_once(": ").unwrap().1.split_once(' ').unwrap();
    let sql = format!("SELECT count(*) AS n FROM '{TEST}' WHERE wae_is_outlier(image, 0.05, 'clothes')");
    assert_eq!(
        stdout(dir.path(), &["--format", "csv", "-c", &sql]).trim(),
        format!("n\n{}", outliers.replace(',', ""))
    );
    let sql = "SELECT sha256 FROM wae_models()";
    let sha256 = stdout(dir.path(), &["--format", "csv", "-c", sql]).lines().nth(1).unwrap().to_owned();
    assert!(html.contains(&format!("<dd>{sha256}</dd>")));
    assert!(
        html.contains("<strong>What α = 0.05 promises. </strong>") && html.contains("with probability at most 5 %")
    );

    // In another order, the same page, but for the name of the table.
    let shuffled = format!("(SELECT * FROM '{TEST}' ORDER BY label DESC, image['bytes'])");
    let (_, again) = report(dir.path(), &["--source", &shuffled, "--label", "label", "--alpha", "0.05"]);
    let body = |html: &str| html.split_once("</header>").unwrap().1.to_owned();
    assert!(body(&html) == body(&again), "the same images give the same page");

    open_in_browser(dir.path());
}

/// Opens the page in Chromium, which must report no error.
fn open_in_browser(dir: &Path) {
    let Some(chromium) = chromium() else {
        println!("skipped: no chromium on the PATH that works, and WAE_CHROMIUM is not set");
        return;
    };
    let profile = TempDir::new().unwrap();
    let screenshot = dir.join("report.png");
    let output = Command::new(&chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
        .args(["--enable-logging=stderr", "--v=0", "--window-size=1100,1400"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", screenshot.display()))
        .arg(format!("file://{}", dir.canonicalize().unwrap().join("report.html").display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    // Lines about the page itself: rules that it violates, files that it lacks.
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:#?}");
    assert!(std::fs::metadata(&screenshot).unwrap().len() > 10_000, "an empty picture");
}

/// The browser: that of `WAE_CHROMIUM`, or the first on the PATH that says its version. Some systems have a script of
/// this name that asks to install it.
fn chromium() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("WAE_CHROMIUM") {
        return Some(named.into());
    }
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    ["chromium", "chromium-browser"].into_iter().find(works).map(PathBuf::from)
}

#[test]
fn hostile_labels_and_missing_images_are_shown_as_text() {
    let dir = trained("holdout => 0.2");
    let source = format!(
        "(SELECT CASE WHEN label = 9 THEN NULL ELSE image END AS \"an image\",
                 '</title><script>alert(1)</script>\"&' || label AS \"a <b> & \"\"c\"\"\" FROM '{TEST}')"
    );
    let arguments = ["--source", &source, "--image", "an image", "--label", "a <b> & \"c\"", "--alpha", "0.05"];
    let (line, html) = report(dir.path(), &arguments);
    assert!(line.contains("of 1,350 images"), "{line}");
    check_form(&html);
    assert!(!html.contains("<script") && html.contains("&lt;script&gt;") && html.contains("150 rows hold no image"));
    assert!(html.contains("&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&amp;3"));
}

#[test]
fn models_without_calibration_and_tables_without_rows() {
    let dir = trained("holdout => 0, objective => 'ae'");
    let source = format!("(SELECT * FROM '{TEST}' WHERE label > 99)");
    let (line, html) = report(dir.path(), &["--source", &source]);
    assert_eq!(line, "report.html: 0 images; the model is not calibrated, so that none is called an outlier\n");
    check_form(&html);
    assert!(html.contains("The table holds no image.") && html.contains("A map needs two images."));
    assert!(!html.contains("training-divergence-title"), "an auto-encoder has no divergence");
    let table = format!("CREATE TABLE coats AS SELECT image FROM '{TEST}' WHERE label = 4");
    let (_, html) = report(dir.path(), &["-c", &table, "--source", "coats"]);
    check_form(&html);
    assert!(html.contains("<strong>150 images</strong>") && !html.contains("threshold at"));
}

/// 60 rows are held out: too few for alpha = 0.01, which nobody gave.
#[tokio::test(flavor = "multi_thread")]
async fn the_library_gives_the_shells_page_and_few_held_out_rows_their_smallest_alpha() {
    let dir = trained("holdout => 0.1");
    let (line, html) = report(dir.path(), &["--source", TEST, "--label", "label"]);
    let ctx = session::context(&dir.path().join("models")).await;
    let options = ReportOptions { label: Some("label".to_owned()), ..Default::default() };
    let page = datafusion_wae::report(&ctx, "clothes", TEST, &options).await.unwrap();
    assert!(page.as_str() == html && page.to_string() == html, "one page for both");
    assert_eq!(line, format!("report.html: {}\n", page.summary()));

    check_form(&html);
    for text in [
        "No α was given. The default, 0.01, takes 99 calibration rows, and this model has 60: α is 1/(60 + 1) here",
        "threshold at α = 1/61: ",
        "What α = 1/61 promises.",
    ] {
        assert!(html.contains(text), "{text}");
    }
    let sql = format!("SELECT count(*) FROM '{TEST}' WHERE wae_p_value(image, 'clothes') <= 1.0 / 61");
    let outliers = query(&ctx, &sql).await[0].column(0).as_primitive::<Int64Type>().value(0);
    let counted = page.summary().replace(',', "");
    assert!(outliers > 0 && counted == format!("{outliers} of 1500 images are outliers at alpha = 1/61"), "{counted}");
}

#[test]
fn mistakes_are_named() {
    let dir = trained("holdout => 0.1");
    for (arguments, message) in [
        (vec!["--model", "nope", "--source", TEST], "no model 'nope'"),
        (vec!["--model", "clothes", "--source", TEST, "--alpha", "0.01"], "alpha = 0.01 needs 99 held-out rows"),
        (vec!["--model", "clothes", "--source", TEST, "--image", "picture"], "picture"),
        (vec!["--model", "clothes", "--source", "nowhere", "--alpha", "0.1"], "nowhere"),
        (
            vec!["--model", "clothes", "--source", TEST, "--alpha", "0.1", "--out", "no/such/folder.html"],
            "no/such/folder.html",
        ),
        (vec!["--model", "clothes", "--source", TEST, "--alpha", "2"], "expected a number between 0 and 1"),
    ] {
        let output = wae(dir.path(), &[vec!["report"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(message), "{message}: {error}");
        assert!(!dir.path().join("report.html").exists());
    }
}
