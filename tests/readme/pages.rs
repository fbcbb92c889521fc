//! The pages of the documentation, and what holds for the form of each.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the guide.
pub const GUIDE: &str = "udfs/src/guide";
/// Definitions of links that stand before each page of the guide in rustdoc.
pub const LINKS: &str = "udfs/src/guide/links.md";
/// The other pages.
const OTHERS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "benches/README.md", "udfs/python/README.md", "udfs/ballista/README.md"];
/// Languages of blocks. A block without one would be Rust to rustdoc.
const LANGUAGES: [&str; 7] = ["sql", "rust", "rust,no_run", "python", "sh", "text", "json"];
/// Characters of a line of prose at most.
const WIDTH: usize = 120;
/// Lines of the README at most.
const README_LINES: usize = 150;

/// A page of the documentation.
pub struct Page {
    /// Its path from the repository's root.
    pub name: String,
    pub text: String,
}

/// The repository's root, from which statements name files. All tests of this binary run there.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::env::set_current_dir(root).unwrap();
    root.to_owned()
}

/// Every page; those of the guide by name.
pub fn pages() -> Vec<Page> {
    let root = root();
    let files = fs::read_dir(root.join(GUIDE)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut guide: Vec<String> = files.map(|file| format!("{GUIDE}/{file}")).collect();
    guide.retain(|name| name.ends_with(".md") && name != LINKS);
    guide.sort();
    let names = OTHERS.map(str::to_owned).into_iter().chain(guide);
    names.map(|name| Page { text: fs::read_to_string(root.join(&name)).unwrap(), name }).collect()
}

impl Page {
    /// The contents of the blocks of one language.
    pub fn blocks(&self, language: &str) -> Vec<String> {
        let parts = self.parts();
        parts.into_iter().filter(|(found, _)| *found == Some(language)).map(|(_, text)| text).collect()
    }

    /// Lines outside of blocks.
    pub fn prose(&self) -> String {
        self.parts().into_iter().filter(|(language, _)| language.is_none()).map(|(_, text)| text).collect()
    }

    /// The languages of all blocks.
    fn languages(&self) -> Vec<&str> {
        self.parts().into_iter().filter_map(|(language, _)| language).collect()
    }

    /// Prose and blocks in turn, each block with its language.
    fn parts(&self) -> Vec<(Option<&str>, String)> {
        let mut parts = vec![(None, String::new())];
        let mut within = false;
        for line in self.text.lines() {
            if let Some(language) = line.strip_prefix("```") {
                within = !within;
                parts.push((within.then_some(language), String::new()));
            } else if let Some((_, text)) = parts.last_mut() {
                text.push_str(line);
                text.push('\n');
            }
        }
        parts
    }
}

#[test]
fn lines_of_prose_are_short() {
    let mut long = Vec::new();
    for page in pages() {
        // Tables and definitions of links cannot be broken; the generated reference is not written by hand.
        let is_long = |line: &&str| line.chars().count() > WIDTH && !line.starts_with(['|', '[']);
        let prose = page.prose();
        let lines = prose.lines().filter(is_long).map(|line| format!("{}: {line}", page.name));
        long.extend(lines.filter(|_| !page.name.ends_with("reference.md")));
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let readme = pages().into_iter().find(|page| page.name == "README.md").unwrap();
    let lines = readme.text.lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines");
}

/// Rust stands where doctests run it, except for a function's file in CONTRIBUTING.md, which another test compares.
#[test]
fn every_block_has_a_language_and_runs() {
    for page in pages() {
        let languages = page.languages();
        for language in &languages {
            assert!(LANGUAGES.contains(language), "{}: a block of '{language}'", page.name);
        }
        let rust = languages.iter().filter(|language| language.starts_with("rust")).count();
        let tested = page.name.starts_with(GUIDE) || matches!(&*page.name, "README.md" | "udfs/ballista/README.md");
        assert!(tested || rust == usize::from(page.name == "CONTRIBUTING.md"), "{}: {rust} blocks of Rust", page.name);
    }
}

#[test]
fn every_page_of_the_guide_is_included_and_listed() {
    let modules = fs::read_to_string(root().join(GUIDE).join("mod.rs")).unwrap();
    let contents = fs::read_to_string(root().join(GUIDE).join("README.md")).unwrap();
    for page in pages() {
        let Some(file) = page.name.strip_prefix(&format!("{GUIDE}/")) else { continue };
        assert!(modules.contains(&format!("include_str!(\"{file}\")")), "guide/mod.rs does not include {file}");
        assert!(file == "README.md" || contents.contains(&format!("]: {file}\n")), "the contents lack {file}");
    }
}
