//! A cell of the table: what came of a form.

use std::fmt;

/// The pictures of a table.
const PICTURES: i64 = 6;
/// Characters of an error that a cell shows at most.
const SHOWN: usize = 64;
/// An error that a user can act on speaks of one of these.
const SUBJECTS: [&str; 5] = ["image", "pixel", "value", "shape", "list"];
/// Signs of an error that is no answer.
const CRASHES: [&str; 4] = ["internal error", "panicked", "bug in datafusion", "not implemented"];

#[derive(Debug)]
pub enum Cell {
    Right,
    /// The error.
    Refused(String),
    /// A value that came, and the right one.
    Wrong(String),
}

impl Cell {
    /// The fault of a cell: a wrong value, or an error that says nothing.
    pub fn fault(&self) -> Option<&str> {
        match self {
            Self::Right => None,
            Self::Wrong(why) => Some(why),
            Self::Refused(error) => {
                let text = error.to_lowercase();
                let crash = CRASHES.iter().any(|sign| text.contains(sign));
                (crash || !SUBJECTS.iter().any(|subject| text.contains(subject))).then_some(error)
            }
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("right"),
            Self::Wrong(_) => f.write_str("WRONG"),
            Self::Refused(error) => write!(f, "`{}`", first_words(error)),
        }
    }
}

/// The beginning of an error, without the rule that met it, the kinds of errors around it, the function's name, and the
/// place.
fn first_words(error: &str) -> String {
    let place = |part: &str| ["Error ", "source column ", "row "].iter().any(|start| part.starts_with(start));
    let is_prefix = |part: &str| part.ends_with(" error") || place(part) || !part.contains(' ');
    let mut text = error.rsplit("caused by").next().unwrap_or(error).trim_start();
    while let Some((_, rest)) = text.split_once(": ").filter(|(part, _)| is_prefix(part)) {
        text = rest;
    }
    let mut shown = String::new();
    for word in text.split_whitespace() {
        if shown.chars().count() + word.chars().count() > SHOWN {
            shown.push_str(" …");
            break;
        }
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(word);
    }
    // What Markdown, and the test of the pages' links, would take for something else.
    shown.replace('`', "'").replace('|', "\\|").replace("][", "] [")
}

/// Compares rows by their ids: each of the pictures has to be there and to pass, and any other row has to be NULL.
/// `fault` says what is wrong with the value of a picture.
pub fn compare<T>(rows: &[(i64, Option<T>)], fault: impl Fn(usize, &T) -> Option<String>) -> Cell {
    let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).filter(|id| *id < PICTURES).collect();
    if ids != (0..PICTURES).collect::<Vec<_>>() {
        return Cell::Wrong(format!("rows {ids:?}"));
    }
    for (id, value) in rows {
        let wrong = match value {
            Some(value) if *id < PICTURES => fault(*id as usize, value),
            None if *id >= PICTURES => None,
            Some(_) => Some("a value, where the image is NULL".to_owned()),
            None => Some("NULL".to_owned()),
        };
        if let Some(wrong) = wrong {
            return Cell::Wrong(format!("row {id}: {wrong}"));
        }
    }
    Cell::Right
}
