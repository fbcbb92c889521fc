//! What can go wrong in the engine, and for whom the message is meant.

use crate::shape::ImageShape;

/// A result whose error is [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine. Each message says what was expected and what came; the SQL layer adds the function's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or a configuration value outside what is allowed.
    #[error("{0}")]
    Config(String),

    /// An Arrow type that holds no images, or no latent codes.
    #[error("{0}")]
    Type(String),

    /// Pixels, bytes or codes that cannot be used: a corrupt image, a value out of range, a null pixel.
    #[error("{0}")]
    Data(String),

    /// An image of another shape than the one that is needed.
    #[error("image has shape {got}, expected {expected}")]
    Shape {
        /// The shape that was needed, (H, W, C).
        expected: ImageShape,
        /// The shape that came, (H, W, C).
        got: ImageShape,
    },

    /// Bad data in one row of a column.
    #[error("row {row}: {source}")]
    Row {
        /// Offset of the row in the column.
        row: usize,
        /// What is wrong with it.
        source: Box<Error>,
    },

    /// A file that is not a readable model of format `wae/1`.
    #[error("{0}")]
    Model(String),

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
        /// What the operating system said.
        source: std::io::Error,
    },

    /// An error of the tensor library.
    #[error(transparent)]
    Tensor(candle_core::Error),
}

impl From<candle_core::Error> for Error {
    /// A GPU's memory that ran out is told apart by the driver's name of it: candle has no kind of error for it.
    fn from(e: candle_core::Error) -> Self {
        // A backtrace of the library's own frames says nothing to a user.
        let e = match e {
            candle_core::Error::WithBacktrace { inner, .. } => *inner,
            e => e,
        };
        let text = e.to_string();
        if text.contains("OUT_OF_MEMORY") || text.contains("out of memory") {
            return Self::DeviceMemory(text);
        }
        Self::Tensor(e)
    }
}

impl Error {
    /// Says in which row of a column the error lies.
    pub fn in_row(self, row: usize) -> Self {
        Self::Row { row, source: Box::new(self) }
    }

    /// Names the file that an operation failed on.
    pub fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().display().to_string(), source }
    }
}
