//! Files and folders in FROM: endings beyond DataFusion's, and the way to read a path that is there and gives no table.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::{GetExt, Result};
use datafusion::config::ConfigOptions;
use datafusion::datasource::file_format::json::JsonFormatFactory;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::prelude::SessionContext;

/// Other endings of files that hold JSON, a value a line.
const JSON_LINES: [&str; 2] = ["jsonl", "ndjson"];
/// Endings that FROM reads, those of texts first.
const ENDINGS: [&str; 6] = ["csv", "json", "jsonl", "ndjson", "parquet", "arrow"];
/// How many of these may be followed by an ending of a compressed file.
const TEXTS: usize = 4;
/// Endings of compressed files.
const COMPRESSED: [&str; 4] = ["gz", "bz2", "xz", "zst"];
/// Endings of images.
const IMAGES: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];

/// Has a context read files of the endings `jsonl` and `ndjson`.
pub(crate) fn register_json_lines(ctx: &SessionContext) -> Result<()> {
    let state = ctx.state_ref();
    let mut state = state.write();
    JSON_LINES.iter().try_for_each(|ending| state.register_file_format(Arc::new(JsonLines { ending }), true))
}

/// JSON, by another ending.
#[derive(Debug)]
struct JsonLines {
    ending: &'static str,
}

impl FileFormatFactory for JsonLines {
    fn create(&self, state: &dyn Session, options: &HashMap<String, String>) -> Result<Arc<dyn FileFormat>> {
        JsonFormatFactory::new().create(state, options)
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        FileFormatFactory::default(&JsonFormatFactory::new())
    }
}

impl GetExt for JsonLines {
    fn get_ext(&self) -> String {
        self.ending.to_owned()
    }
}

/// A pattern with the home folder in the place of `~`.
pub(crate) fn below_home(pattern: &str) -> Result<String, String> {
    let rest = match pattern.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => return Ok(pattern.to_owned()),
    };
    match std::env::home_dir().and_then(|home| home.into_os_string().into_string().ok()) {
        Some(home) if !home.is_empty() => Ok(home + rest),
        _ => Err("there is no home folder to take for '~'".to_owned()),
    }
}

/// The reason why a path that exists gives no table, and the way to read it. `None` where the path does not exist, or
/// where nothing prevents reading it.
pub(crate) fn explain(path: &str, options: &ConfigOptions) -> Option<String> {
    let at = Path::new(path);
    if at.is_dir() {
        return explain_folder(path, options);
    }
    if let Ok(at_home) = below_home(path)
        && at_home != path
        && !at.exists()
    {
        return Some(format!("FROM takes '~' for the name of a folder, expected '{at_home}'"));
    }
    let found = if at.is_file() { at.to_owned() } else { glob::glob(path).ok()?.flatten().find(|at| at.is_file())? };
    let name = found.file_name()?.to_string_lossy().into_owned();
    (!is_read(&name)).then(|| format!("'{path}' is no table: {}", explain_files(path, &name)))
}

fn explain_folder(path: &str, options: &ConfigOptions) -> Option<String> {
    let entries = match std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(e) => return Some(format!("'{path}' cannot be read: {e}")),
    };
    let path = path.trim_end_matches('/');
    let (folders, files): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.path().is_dir());
    let mut names: Vec<_> = files.iter().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let (read, unread): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_read(name));
    // Beside folders, a hidden file such as `.DS_Store` says nothing.
    let other = unread.iter().find(|name| read.len() + folders.len() == 0 || !name.starts_with('.'));
    match (read.first(), other.or(unread.first().filter(|_| !read.is_empty()))) {
        (Some(name), Some(other)) => {
            let ending = name.split_once('.').map_or("", |(_, ending)| ending);
            let those = format!("{path}/*.{ending}");
            Some(format!("'{path}' holds also other files ('{other}'): name those to read, as in '{those}'"))
        }
        (Some(_), None) => None,
        (None, Some(name)) => Some(format!("'{path}' holds no table: {}", explain_files(&format!("{path}/"), name))),
        (None, None) if folders.is_empty() => Some(format!("'{path}' is an empty folder")),
        (None, None) if options.execution.listing_table_ignore_subdirectory => Some(format!(
            "'{path}' holds folders, but no file: SET datafusion.execution.listing_table_ignore_subdirectory = false \
             has the files in them read, too"
        )),
        (None, None) => Some(format!("the folders in '{path}' hold no file that FROM reads, expected {}", endings())),
    }
}

/// The way to read files of an ending that FROM does not read, of which one is given.
fn explain_files(path: &str, name: &str) -> String {
    let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending {
        Some(ending) if IMAGES.contains(&ending.as_str()) => {
            let pattern = if path.ends_with('/') { format!("{path}*.{ending}") } else { path.to_owned() };
            format!("'{name}' is an image, and read_images('{pattern}') reads it")
        }
        _ => format!(
            "FROM reads files of the endings {}, got '{name}': CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{path}' \
             reads it as what STORED AS says (CSV, JSON, PARQUET or ARROW)",
            endings()
        ),
    }
}

fn endings() -> String {
    let texts = ENDINGS[..TEXTS].join(", .");
    format!(".parquet, .arrow, .{texts} (these also with .{})", COMPRESSED.join(", ."))
}

/// Whether FROM reads a file of a name.
fn is_read(name: &str) -> bool {
    let is_one = |name: &str, endings: &[&str]| {
        name.rsplit_once('.').is_some_and(|(_, ending)| endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
    };
    match name.rsplit_once('.') {
        Some((text, ending)) if COMPRESSED.contains(&ending) => is_one(text, &ENDINGS[..TEXTS]),
        _ => is_one(name, &ENDINGS),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    #[rstest]
    #[case("a.parquet", true)]
    #[case("A.CSV", true)]
    #[case("a.ndjson", true)]
    #[case("a.csv.gz", true)]
    #[case("a.jsonl.zst", true)]
    #[case("a.parquet.gz", false)]
    #[case("a.gz", false)]
    #[case("csv", false)]
    #[case("a.txt", false)]
    fn a_file_is_known_by_its_ending(#[case] name: &str, #[case] known: bool) {
        assert_eq!(is_read(name), known);
    }

    #[rstest]
    #[case::nothing("nothing.txt", &[], None)]
    #[case::known("a.csv", &["a.csv"], None)]
    #[case::text("a.txt", &["a.txt"], Some("a.txt' is no table: FROM reads files of the endings .parquet, "))]
    #[case::stored_as("a.txt", &["a.txt"], Some("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '"))]
    #[case::no_ending("README", &["README"], Some("got 'README'"))]
    #[case::image("a.png", &["a.png"], Some("'a.png' is an image, and read_images('"))]
    #[case::pattern("*.txt", &["a.txt"], Some("got 'a.txt'"))]
    #[case::folder_of_tables("f", &["f/a.csv"], None)]
    #[case::folder_of_texts("f", &["f/a.txt"], Some("f' holds no table: FROM reads files of the endings"))]
    #[case::folder_of_images("f/", &["f/a.jpg"], Some("f/*.jpg') reads it"))]
    #[case::other_files("f", &["f/_SUCCESS", "f/a.parquet"], Some("other files ('_SUCCESS'): name those to read"))]
    #[case::hidden_and_folders("f", &["f/.DS_Store", "f/a/a.csv"], Some("f' holds folders, but no file"))]
    #[case::hidden_and_tables("f", &["f/.DS_Store", "f/a.csv"], Some("other files ('.DS_Store')"))]
    #[case::folders("f/", &["f/a/a.csv"], Some("SET datafusion.execution.listing_table_ignore_subdirectory = false"))]
    fn a_path_that_is_there_is_explained(#[case] path: &str, #[case] files: &[&str], #[case] message: Option<&str>) {
        let dir = TempDir::new().unwrap();
        for file in files {
            let file = dir.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let path = format!("{}/{path}", dir.path().display());
        let got = explain(&path, &ConfigOptions::new());
        match message {
            None => assert_eq!(got, None),
            Some(message) => assert!(got.as_ref().is_some_and(|got| got.contains(message)), "{got:?}"),
        }
    }

    #[test]
    fn folders_without_files_are_told_apart() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().display().to_string();
        let mut options = ConfigOptions::new();
        assert_eq!(explain(&path, &options).unwrap(), format!("'{path}' is an empty folder"));
        std::fs::create_dir(dir.path().join("a")).unwrap();
        options.execution.listing_table_ignore_subdirectory = false;
        assert!(explain(&path, &options).unwrap().contains("hold no file that FROM reads, expected .parquet"));
    }
}
