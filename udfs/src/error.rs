//! The engine's errors as DataFusion's, with the function's name put before each.

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};

use arrow::array::ArrayRef;
use datafusion::common::{DataFusionError, ScalarValue};
use wae_core::{Config, Error, ImageColumn, ImageShape};

/// An error of planning: a wrong type, option or configuration.
pub(crate) fn plan_error(function: &str, error: &Error) -> DataFusionError {
    datafusion::common::plan_datafusion_err!("{function}: {error}")
}

/// An error of execution: bad data, a file that cannot be used.
pub(crate) fn exec_error(function: &str, error: &Error) -> DataFusionError {
    match error {
        Error::Row { row, source } => row_error(function, Place::Row(*row), source),
        Error::Resources(reason) => datafusion::common::resources_datafusion_err!("{function}: {reason}"),
        error => datafusion::common::exec_datafusion_err!("{function}: {error}"),
    }
}

/// An error of execution in one row.
pub(crate) fn row_error(function: &str, place: Place, reason: impl Display) -> DataFusionError {
    datafusion::common::exec_datafusion_err!("{function}: {place}: {reason}")
}

/// A row, as messages name it: by the path of its image's file where that is known, otherwise by its place in the
/// batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Row(usize),
    File(String),
}

impl Place {
    /// A row of a column of images, with the paths of their files where a column beside it has them.
    pub(crate) fn of_image(row: usize, column: &ImageColumn, paths: Option<&ArrayRef>) -> Self {
        let beside = paths.and_then(|paths| ScalarValue::try_from_array(paths, row).ok());
        let beside = beside.as_ref().and_then(|path| path.try_as_str().flatten());
        beside.or_else(|| column.path(row)).map_or(Self::Row(row), |path| Self::File(path.to_owned()))
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(row) => write!(f, "row {row} of the batch"),
            Self::File(path) => write!(f, "'{path}'"),
        }
    }
}

/// An image, or features, of another shape than the model's.
pub(crate) fn shape_mismatch(got: ImageShape, model: &str, config: &Config) -> String {
    if config.backbone().is_some() {
        return format!("image has shape {got}, model '{model}' takes images of red, green and blue");
    }
    let expected = config.source();
    let is_vector = |shape: ImageShape| shape.height() * shape.width() == 1;
    match config.input() {
        None => format!("image has shape {got}, model '{model}' takes {expected}"),
        Some(_) if is_vector(got) && is_vector(expected) => {
            format!("the vector has {} values, model '{model}' takes {}", got.channels(), expected.channels())
        }
        Some(_) => format!("features have shape {got}, model '{model}' takes {expected}"),
    }
}

/// Images of a batch that gave NULL because they could not be read, for one warning a batch.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    count: usize,
    first: Option<(Place, String)>,
}

impl Unreadable {
    /// Counts an image; rows come in order.
    pub(crate) fn push(&mut self, place: Place, reason: impl Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| (place, reason.to_string()));
    }

    /// Logs what was counted, if anything: of how many `images`, and for which model if the function takes one. Within
    /// [`Skipped::collect`] it is kept for the one line of a whole query.
    pub(crate) fn warn(&self, function: &str, images: usize, model: Option<&str>) {
        if self.count == 0 {
            return;
        }
        let warning = format!("{function}: {}", Warning { unreadable: self, images, model });
        COLLECTING.with_borrow_mut(|collecting| match collecting {
            Some(skipped) => skipped.add(self.count, warning),
            None => log::warn!("{warning}"),
        });
    }
}

thread_local! {
    /// Who collects the warnings of this thread: expressions have no other way to tell their plan node of a row.
    static COLLECTING: RefCell<Option<Skipped>> = const { RefCell::new(None) };
}

/// Images of a query's partition that gave NULL because they could not be read. Logged, once, when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    count: usize,
    first: Option<String>,
}

impl Skipped {
    /// Evaluates expressions on this thread and counts the images that they skip.
    pub(crate) fn collect<T>(&mut self, evaluate: impl FnOnce() -> T) -> T {
        COLLECTING.set(Some(std::mem::take(self)));
        let value = evaluate();
        if let Some(skipped) = COLLECTING.take() {
            *self = skipped;
        }
        value
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn add(&mut self, count: usize, warning: String) {
        self.count += count;
        self.first.get_or_insert(warning);
    }
}

impl Drop for Skipped {
    fn drop(&mut self) {
        if let Some(first) = &self.first {
            log::warn!("{} images could not be read and are NULL; the first batch with any: {first}", self.count);
        }
    }
}

struct Warning<'a> {
    unreadable: &'a Unreadable,
    images: usize,
    model: Option<&'a str>,
}

impl Display for Warning<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} images could not be read", self.unreadable.count, self.images)?;
        if let Some(model) = self.model {
            write!(f, " for model '{model}'")?;
        }
        write!(f, " and are NULL")?;
        match &self.unreadable.first {
            Some((place, reason)) => write!(f, "; the first: {place}: {reason}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_counts_and_tells_the_first() {
        let mut unreadable = Unreadable::default();
        unreadable.push(Place::Row(2), "image has shape [64, 64, 3], model 'clothes' takes [28, 28, 1]");
        unreadable.push(Place::Row(5), "no PNG");
        let text = |model| Warning { unreadable: &unreadable, images: 7, model }.to_string();
        assert_eq!(
            text(Some("clothes")),
            "2 of 7 images could not be read for model 'clothes' and are NULL; the first: row 2 of the batch: image \
             has shape [64, 64, 3], model 'clothes' takes [28, 28, 1]"
        );
        assert!(text(None).starts_with("2 of 7 images could not be read and are NULL; the first: row 2"));
    }

    #[test]
    fn a_query_collects_the_images_of_its_batches() {
        let mut skipped = Skipped::default();
        for count in [2, 0, 1] {
            let batch = || {
                let mut unreadable = Unreadable::default();
                (0..count).for_each(|row| unreadable.push(Place::Row(row), "no PNG"));
                unreadable.warn("f", 5, None);
            };
            skipped.collect(batch);
        }
        assert_eq!(skipped.count(), 3);
        let first = skipped.first.clone().unwrap();
        assert_eq!(first, "f: 2 of 5 images could not be read and are NULL; the first: row 0 of the batch: no PNG");
        assert!(COLLECTING.take().is_none());
    }

    #[test]
    fn an_error_names_the_row_once() {
        let error = exec_error("f", &Error::Data("no PNG".to_owned()).in_row(3)).strip_backtrace();
        assert_eq!(error, "Execution error: f: row 3 of the batch: no PNG");
    }
}
