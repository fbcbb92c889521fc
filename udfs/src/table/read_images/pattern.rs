//! The files that the argument of `read_images` stands for: those that a shell gives for it.
//!
//! A path that exists is taken as it is. In any other, `*`, `?` and `[a-z]` stand for parts of a name, `**` for any
//! depth of folders, `{png,jpg}` for either, and a `~` at the beginning for the home folder. No wildcard stands for the
//! dot at the beginning of a name: `.*` names it.

use std::fs;
use std::path::{Path, PathBuf};

use glob::Pattern;

use crate::files::below_home;

/// Most alternatives of a pattern.
const MAX_ALTERNATIVES: usize = 10_000;

/// A path, or a pattern of paths.
#[derive(Debug)]
pub(super) struct FilePattern {
    /// The argument as it was written.
    argument: String,
    /// The argument as a path, below the home folder where it says so.
    path: PathBuf,
    /// The alternatives: the parts of each, below a root.
    alternatives: Vec<(PathBuf, Vec<Part>)>,
}

/// A part of a path, between separators.
#[derive(Debug)]
enum Part {
    /// A name.
    Name(String),
    /// A pattern of names.
    Names(Pattern),
    /// `**`: any number of folders, one in the other.
    AnyDepth,
}

impl FilePattern {
    /// Reads an argument.
    ///
    /// # Errors
    /// A message that says where the pattern is wrong.
    pub(super) fn try_new(argument: &str) -> Result<Self, String> {
        let written = Path::new(argument);
        if exists(written) {
            return Ok(Self { argument: argument.to_owned(), path: written.to_owned(), alternatives: Vec::new() });
        }
        let pattern = below_home(argument)?;
        let alternatives = alternatives(&pattern)?.iter().map(|pattern| parts(pattern)).collect::<Result<_, _>>()?;
        Ok(Self { argument: argument.to_owned(), path: pattern.into(), alternatives })
    }

    /// The files, at least one, sorted by their whole path, each once.
    ///
    /// # Errors
    /// A message that names the folder that cannot be read, or the pattern that matches no file.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, String> {
        if exists(&self.path) && is_file(&self.path) {
            return Ok(vec![self.path.clone()]);
        }
        let mut files = Vec::new();
        for (root, parts) in &self.alternatives {
            find(root, parts, &mut files)?;
        }
        if files.is_empty() {
            let folder = ", which is a folder: try its files, as in 'folder/*.png'";
            return Err(format!("no file matches '{}'{}", self.argument, if self.path.is_dir() { folder } else { "" }));
        }
        files.sort();
        files.dedup();
        Ok(files)
    }
}

/// Whether there is a file, a folder or a link of a path, a broken link included.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether a path is to be read: a file, or what cannot be looked at, whose reading will say why.
fn is_file(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

/// The alternatives of a pattern such as `{a,b{1,2}}.png`. Braces that hold no comma stand for themselves.
fn alternatives(pattern: &str) -> Result<Vec<String>, String> {
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(pattern) = open.pop() {
        match choice(&pattern) {
            Some((start, end)) => {
                let choices = pattern[start + 1..end].split(',');
                open.extend(choices.map(|choice| format!("{}{choice}{}", &pattern[..start], &pattern[end + 1..])));
            }
            None => done.push(pattern),
        }
        if open.len() + done.len() > MAX_ALTERNATIVES {
            return Err(format!("more than {MAX_ALTERNATIVES} alternatives"));
        }
    }
    Ok(done)
}

/// Where the first braces to close that hold a comma begin and end.
fn choice(pattern: &str) -> Option<(usize, usize)> {
    let mut open = Vec::new();
    for (at, character) in pattern.char_indices() {
        if character == '{' {
            open.push((at, false));
        } else if let (',', Some((_, has_comma))) = (character, open.last_mut()) {
            *has_comma = true;
        } else if character == '}'
            && let Some((start, true)) = open.pop()
        {
            return Some((start, at));
        }
    }
    None
}

/// The parts of a pattern without alternatives, and where they begin: `/` or the current folder.
fn parts(pattern: &str) -> Result<(PathBuf, Vec<Part>), String> {
    let root = if pattern.starts_with('/') { "/" } else { "" };
    let names = pattern.split('/').filter(|name| !name.is_empty() && *name != ".");
    let part = |name: &str| match name {
        "**" => Ok(Part::AnyDepth),
        // Not any of these in a shell, any of these or `^` in Python.
        name if name.contains("[^") => Err(format!("'[^' in '{name}' has two readings: write '[!'")),
        name if name.contains(['*', '?', '[']) => Pattern::new(name).map(Part::Names).map_err(|e| e.to_string()),
        name => Ok(Part::Name(name.to_owned())),
    };
    Ok((root.into(), names.map(part).collect::<Result<_, _>>()?))
}

/// Adds the files of a folder that parts of a path match.
fn find(folder: &Path, parts: &[Part], files: &mut Vec<PathBuf>) -> Result<(), String> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    let mut add = |path: PathBuf| match rest {
        [] if is_file(&path) => {
            files.push(path);
            Ok(())
        }
        [] => Ok(()),
        rest => find(&path, rest, files),
    };
    match part {
        Part::Name(name) => {
            let path = folder.join(name);
            if exists(&path) { add(path) } else { Ok(()) }
        }
        // The pattern `a[1]` is also a name.
        Part::Names(pattern) if !pattern.as_str().contains(['*', '?']) && exists(&folder.join(pattern.as_str())) => {
            add(folder.join(pattern.as_str()))
        }
        Part::Names(pattern) => {
            let matches = |(name, _): &(String, PathBuf)| {
                pattern.matches(name) && (!name.starts_with('.') || pattern.as_str().starts_with('.'))
            };
            children(folder)?.into_iter().filter(matches).try_for_each(|(_, path)| add(path))
        }
        Part::AnyDepth => {
            find(folder, rest, files)?;
            for (_, path) in children(folder)?.into_iter().filter(|(name, _)| !name.starts_with('.')) {
                if is_below(folder, &path) {
                    find(&path, parts, files)?;
                } else if rest.is_empty() && is_file(&path) {
                    files.push(path);
                }
            }
            Ok(())
        }
    }
}

/// The names and paths in a folder; none if it is no folder.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let read = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !read.is_dir() {
        return Ok(Vec::new());
    }
    let child = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry?.file_name();
        Ok((name.to_string_lossy().into_owned(), folder.join(&name)))
    };
    let entries = fs::read_dir(read).and_then(|entries| entries.map(child).collect());
    entries.map_err(|e| format!("{}: {e}", read.display()))
}

/// Whether a path in a folder is a folder below it: a link to one above would lead round and round.
fn is_below(folder: &Path, path: &Path) -> bool {
    if !path.is_dir() || !path.is_symlink() {
        return path.is_dir();
    }
    let Ok(target) = fs::canonicalize(path) else { return false };
    // The folders on the way here, too: two links may lead to each other.
    folder.ancestors().all(|above| {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        fs::canonicalize(above).is_ok_and(|above| !above.starts_with(&target))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tempfile::TempDir;

    use super::*;

    #[rstest]
    #[case::none("a.png", &["a.png"])]
    #[case::two("*.{png,jpg}", &["*.jpg", "*.png"])]
    #[case::nested("{a,b{1,2}}.png", &["a.png", "b1.png", "b2.png"])]
    #[case::several("{a,b}/{1,2}", &["a/1", "a/2", "b/1", "b/2"])]
    #[case::empty("a{,b}", &["a", "ab"])]
    #[case::no_comma("a{1}", &["a{1}"])]
    #[case::not_closed("a{1,2", &["a{1,2"])]
    #[case::not_opened("a1,2}", &["a1,2}"])]
    #[case::choice_in_a_name("{{a,b}}", &["{a}", "{b}"])]
    fn braces_give_alternatives(#[case] pattern: &str, #[case] expected: &[&str]) {
        let mut found = alternatives(pattern).unwrap();
        found.sort();
        found.dedup();
        assert_eq!(found, expected);
    }

    #[test]
    fn alternatives_are_bounded() {
        let error = alternatives(&"{a,b}".repeat(40)).unwrap_err();
        assert_eq!(error, "more than 10000 alternatives");
    }

    /// A folder of files and folders, and what a pattern in it gives.
    fn tree() -> TempDir {
        let dir = TempDir::new().unwrap();
        for name in [
            "1.png",
            "._1.png",
            ".hidden.png",
            "2.jpg",
            "a[1].png",
            "a1.png",
            "b{x,y}.png",
            "sub/3.png",
            "sub/deep/4.png",
            ".git/5.png",
            "sub/.cache/6.png",
            "é.png",
            "x[1]/7.png",
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        fs::create_dir(dir.path().join("folder.png")).unwrap();
        dir
    }

    fn names(dir: &TempDir, pattern: &str) -> Vec<String> {
        let files = FilePattern::try_new(&format!("{}/{pattern}", dir.path().display())).unwrap().files().unwrap();
        files.iter().map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
    }

    #[rstest]
    #[case::no_dots_and_no_folders("*.png", &["1.png", "a1.png", "a[1].png", "b{x,y}.png", "é.png"])]
    #[case::any_name("*", &["1.png", "2.jpg", "a1.png", "a[1].png", "b{x,y}.png", "é.png"])]
    #[case::dots_that_are_named(".*.png", &["._1.png", ".hidden.png"])]
    #[case::hidden_path(".hidden.png", &[".hidden.png"])]
    #[case::hidden_folder(".git/*.png", &[".git/5.png"])]
    #[case::no_hidden_folder("*/*.png", &["sub/3.png", "x[1]/7.png"])]
    #[case::alternatives("*.{png,jpg}", &["1.png", "2.jpg", "a1.png", "a[1].png", "b{x,y}.png", "é.png"])]
    #[case::each_once("{1,*,?}.{png,p*}", &["1.png", "a1.png", "a[1].png", "b{x,y}.png", "é.png"])]
    #[case::a_name_before_a_pattern("a[1].png", &["a[1].png"])]
    #[case::a_name_with_braces("b{x,y}.png", &["b{x,y}.png"])]
    #[case::a_folder_before_a_pattern("x[1]/*.png", &["x[1]/7.png"])]
    #[case::a_class("[1-9].png", &["1.png"])]
    #[case::not_of_a_class("[!1-9].png", &["é.png"])]
    #[case::any_depth("**/[0-9].png", &["1.png", "sub/3.png", "sub/deep/4.png", "x[1]/7.png"])]
    #[case::all_below("sub/**", &["sub/3.png", "sub/deep/4.png"])]
    #[case::any_depth_twice("**/**/4.png", &["sub/deep/4.png"])]
    #[case::some_of_the_alternatives("{1,99}.png", &["1.png"])]
    fn a_pattern_gives_what_a_shell_gives(#[case] pattern: &str, #[case] expected: &[&str]) {
        assert_eq!(names(&tree(), pattern), expected);
    }

    #[test]
    fn a_pattern_that_is_wrong_says_where() {
        for (pattern, message) in
            [("a/***", "Pattern syntax error"), ("a/[^0-9].png", "'[^' in '[^0-9].png' has two readings: write '[!'")]
        {
            let error = FilePattern::try_new(pattern).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let dir = tree();
        let folder = dir.path().display();
        let error = |name: &str| FilePattern::try_new(&format!("{folder}/{name}")).unwrap().files().unwrap_err();
        assert_eq!(error("*.gif"), format!("no file matches '{folder}/*.gif'"));
        assert!(error("sub").ends_with("/sub', which is a folder: try its files, as in 'folder/*.png'"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_for_loops_and_broken_ones_are_files() {
        use std::os::unix::fs::symlink;

        let dir = tree();
        symlink(dir.path(), dir.path().join("sub/up")).unwrap();
        symlink(dir.path().join("sub/deep"), dir.path().join("link")).unwrap();
        symlink("nowhere", dir.path().join("broken.png")).unwrap();
        assert_eq!(names(&dir, "**/4.png"), ["link/4.png", "sub/deep/4.png"]);
        assert_eq!(names(&dir, "br*.png"), ["broken.png"]);
        assert_eq!(names(&dir, "broken.png"), ["broken.png"]);
    }
}
