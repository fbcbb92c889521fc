//! Errors of the engine, each with the fields that a program can act on.

use crate::shape::ImageShape;

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A sentence about a name that is none of those known, with all of them, and a question where one is nearly the same:
/// `unknown option 'epoch', expected one of batch_size, epochs; did you mean 'epochs'?`
pub fn unknown_name(kind: &str, given: &str, known: &[&str]) -> String {
    let distance = |name: &&&str| strsim::damerau_levenshtein(&given.to_lowercase(), name);
    // One edit for each three letters, and at least one. The distance takes memory of the product of both lengths.
    let most = (given.chars().count() / 3).max(1);
    let alike = known.iter().filter(|name| given.len().abs_diff(name.len()) <= name.len());
    let near = alike.min_by_key(distance).filter(|name| distance(name) <= most);
    let question = near.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
    format!("unknown {kind} '{given}', expected one of {}{question}", known.join(", "))
}

/// An error of the engine. Each message says what was expected and what was given; the SQL layer adds the function's
/// name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of a configuration, or of options together, that is not allowed.
    #[error("{0}")]
    Config(String),

    /// A training option with a value out of range, or one that does not go with the rest.
    #[error("option '{option}' {problem}")]
    TrainOption {
        /// The option's name.
        option: String,
        /// The expected and the given value.
        problem: String,
    },

    /// An Arrow type that holds no images, or no latent codes.
    #[error("{0}")]
    Type(String),

    /// Pixels, bytes or codes that cannot be used: a corrupt image, a value out of range, a null pixel.
    #[error("{0}")]
    Data(String),

    /// An image of another shape than expected.
    #[error("image has shape {got}, expected {expected}")]
    Shape {
        /// The expected shape, (H, W, C).
        expected: ImageShape,
        /// The image's shape, (H, W, C).
        got: ImageShape,
    },

    /// Bad data in one row of a column.
    #[error("row {row}: {source}")]
    Row {
        /// Offset of the row in the column.
        row: usize,
        /// The error of that row.
        source: Box<Error>,
    },

    /// A file that is not a readable model.
    #[error("{0}")]
    Model(String),

    /// A model with another architecture than the options ask for.
    #[error("it has {part} {got}, expected {expected} as the options say")]
    ModelArchitecture {
        /// The first part that differs, such as `latent_dim`.
        part: String,
        /// Its value in the options.
        expected: String,
        /// Its value in the model.
        got: String,
    },

    /// A tensor of a model file or a checkpoint that is missing, or whose type or values are not allowed.
    #[error("tensor '{tensor}' {problem}")]
    ModelTensor {
        /// The tensor's name.
        tensor: String,
        /// The reason why it is refused.
        problem: String,
    },

    /// A tensor of a model file or a checkpoint with another shape than its configuration says.
    #[error("tensor '{tensor}' has shape {got:?}, expected {expected:?}")]
    ModelTensorShape {
        /// The tensor's name.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// Its shape in the file.
        got: Vec<usize>,
    },

    /// A GPU that cannot be opened, or that failed.
    #[error("{0}")]
    Device(String),

    /// A GPU's memory ran out.
    #[error("{0}")]
    DeviceMemory(String),

    /// Training that cannot go on, such as a loss that is not finite.
    #[error("{0}")]
    Training(String),

    /// Training was stopped from outside. The last checkpoint, if any, stays.
    #[error("training was cancelled")]
    Cancelled,

    /// Memory, or a temporary file, that was refused.
    #[error("{0}")]
    Resources(String),

    /// Reading or writing a file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// An error of the tensor library.
    #[error("{source}")]
    Tensor {
        /// The library's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[doc(hidden)]
impl From<candle_core::Error> for Error {
    /// A GPU's memory that ran out is told apart by the driver's name of it: candle has no kind of error for it.
    fn from(mut e: candle_core::Error) -> Self {
        // A backtrace of the library's own frames says nothing to a user.
        while let candle_core::Error::WithBacktrace { inner, .. } = e {
            e = *inner;
        }
        let text = e.to_string();
        if text.contains("OUT_OF_MEMORY") || text.contains("out of memory") {
            return Self::DeviceMemory(text);
        }
        Self::Tensor { source: Box::new(e) }
    }
}

impl Error {
    /// Names the row of a column that the error is in.
    pub fn in_row(self, row: usize) -> Self {
        Self::Row { row, source: Box::new(self) }
    }

    /// Names the training option that is wrong.
    pub(crate) fn train_option(option: &str, problem: impl Into<String>) -> Self {
        Self::TrainOption { option: option.to_owned(), problem: problem.into() }
    }

    /// Names the tensor of a model file that is wrong.
    pub(crate) fn model_tensor(tensor: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::ModelTensor { tensor: tensor.into(), problem: problem.into() }
    }

    /// Names the file that an operation failed on.
    pub fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().display().to_string(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tensor_librarys_error_is_a_source_without_its_backtrace() {
        let with_backtrace = |inner| candle_core::Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        let error = Error::from(with_backtrace(with_backtrace(candle_core::Error::Msg("no".to_owned()))));
        assert_eq!(error.to_string(), "no");
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<candle_core::Error>());
        assert!(matches!(source, Some(candle_core::Error::Msg(text)) if text == "no"), "{source:?}");
    }
}
