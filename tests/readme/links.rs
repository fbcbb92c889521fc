//! Links of the pages: to files of the repository, and to headings of its pages.
//!
//! Pages of the guide link by definitions at their ends, `[label]: file.md#heading`, which is right in the repository.
//! In rustdoc the definition of the same label in `links.md` comes first, and counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::pages::{GUIDE, LINKS, Page, pages, root};

/// How pages that are read elsewhere name files of the repository.
const REPOSITORY: &str = "https://github.com/datafusion-wae/datafusion-wae/blob/main/";
/// How the guide's pages are named in rustdoc.
const MODULE: &str = "crate::guide::";

/// A file of the repository, and a heading in it (empty for none).
type Target = (PathBuf, String);

/// The target of a link that stands in a page; nothing for another site.
fn target(page: &str, link: &str) -> Option<Target> {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let path = if let Some(path) = path.strip_prefix(REPOSITORY) {
        PathBuf::from(path)
    } else if let Some(module) = path.strip_prefix(MODULE) {
        Path::new(GUIDE).join(format!("{module}.md"))
    } else if let Some(module) = path.strip_prefix("wae_core::") {
        PathBuf::from(format!("src/{module}.rs"))
    } else if path.starts_with("http") {
        return None;
    } else if path.is_empty() {
        PathBuf::from(page)
    } else {
        normal(&Path::new(page).parent().unwrap().join(path))
    };
    Some((path, heading.to_owned()))
}

/// A path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}

/// Links in the text itself: `[text](link)`.
fn inline_links(prose: &str) -> Vec<&str> {
    prose.match_indices("](").map(|(start, _)| prose[start + 2..].split(')').next().unwrap()).collect()
}

/// Definitions of links by their labels: `[label]: link`.
fn definitions(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")).collect()
}

/// Labels that the text uses: `[text][label]`.
fn labels(prose: &str) -> Vec<&str> {
    prose.match_indices("][").map(|(start, _)| prose[start + 2..].split(']').next().unwrap()).collect()
}

/// The anchor of a heading, as GitHub and rustdoc make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn check((path, heading): &Target, page: &str) {
    let file = root().join(path);
    assert!(file.exists(), "{page} links to {}, which is not there", path.display());
    if !heading.is_empty() {
        let linked = Page { name: path.display().to_string(), text: fs::read_to_string(file).unwrap() }.prose();
        let mut headings = linked.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
        assert!(headings.any(|text| anchor(text) == *heading), "{page}: {} has no #{heading}", path.display());
    }
}

#[test]
fn links_lead_to_files_and_headings() {
    for page in pages() {
        let prose = page.prose();
        let definitions = definitions(&prose);
        for link in inline_links(&prose).into_iter().chain(definitions.values().copied()) {
            if let Some(target) = target(&page.name, link) {
                check(&target, &page.name);
            }
        }
        for label in labels(&prose) {
            assert!(definitions.contains_key(label), "{}: [{label}] is not defined", page.name);
        }
    }
}

#[test]
fn links_of_the_guide_are_the_same_in_rustdoc() {
    let links = fs::read_to_string(root().join(LINKS)).unwrap();
    let in_rustdoc = definitions(&links);
    for link in in_rustdoc.values() {
        check(&target(LINKS, link).unwrap(), LINKS);
    }
    for page in pages().iter().filter(|page| page.name.starts_with(GUIDE)) {
        let prose = page.prose();
        for (label, link) in definitions(&prose) {
            let other = in_rustdoc.get(label).unwrap_or_else(|| panic!("links.md does not define [{label}]"));
            assert_eq!(target(&page.name, link), target(LINKS, other), "{}: [{label}]", page.name);
        }
        // In rustdoc a path in the text would lead beside the page.
        for link in inline_links(&prose) {
            assert!(link.starts_with("http") || link.starts_with('#'), "{}: {link}", page.name);
        }
    }
}

/// Pages that are read on PyPI and in rustdoc have no files beside them.
#[test]
fn pages_of_packages_link_by_the_repositorys_address() {
    for page in pages().iter().filter(|page| page.name.starts_with("udfs/") && !page.name.starts_with(GUIDE)) {
        let prose = page.prose();
        for link in inline_links(&prose).into_iter().chain(definitions(&prose).into_values()) {
            assert!(link.starts_with("http") || link.starts_with('#'), "{}: {link}", page.name);
        }
    }
}
