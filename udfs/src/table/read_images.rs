//! `read_images(glob)`: the files that a path or a pattern stands for, one a row, sorted by path.

mod pattern;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::{Result, exec_datafusion_err, exec_err, plan_datafusion_err, plan_err};

use self::pattern::FilePattern;
use crate::documentation::FunctionDocumentation;
use crate::options::{OnError, WaeOptions};
use crate::table::function::{Call, TableFunction};
use crate::table::stream::{self, Sink};

/// Files of a batch, at most.
const BATCH_ROWS: usize = 256;
/// Bytes of a batch, beyond which it gets no further file.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes of a file, at most: with those of its batch, as many as a column of Binary holds.
const MAX_FILE_BYTES: usize = i32::MAX as usize - BATCH_BYTES;

/// The table function.
pub(crate) const READ_IMAGES: TableFunction = TableFunction {
    documentation: FunctionDocumentation {
        name: "read_images",
        syntax: "read_images(glob)",
        description: "The files that a path or a pattern stands for, each once, sorted by path: path, bytes, modified. The \
         bytes are not decoded. Local files only.",
        arguments: &[(
            "glob",
            "A path, or a pattern such as `'photos/*.{png,jpg}'`, read as a shell reads it: `**` stands for any depth of \
             folders, `~` at the beginning for the home folder, and no wildcard for the dot at the beginning of a name. A \
             path that exists is no pattern.",
        )],
        example: "SELECT path, wae_reconstruction_cost(bytes, 'fashion') AS cost FROM read_images('photos/*.png') \
         ORDER BY cost DESC;",
        related: &[],
    },
    takes_options: false,
    schema: |_| Ok(schema()),
    plan,
};

fn plan(mut call: Call) -> Result<Arc<dyn TableProvider>> {
    let function = call.function;
    let Some(pattern) = call.take_text("glob")? else {
        return plan_err!("{function} takes 1 argument (glob), got none");
    };
    if pattern.contains("://") {
        return plan_err!("{function}: glob must be a pattern of local files, got '{pattern}'");
    }
    let files = FilePattern::try_new(&pattern);
    let files = files.map_err(|message| plan_datafusion_err!("{function}: glob '{pattern}': {message}"))?;
    let options = call.options;
    stream::table(schema(), move |_, sink| read(&files, &options, sink))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("bytes", DataType::Binary, true),
        Field::new("modified", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
    ]))
}

/// Reads the files a batch at a time: only their paths are in memory together.
fn read(files: &FilePattern, options: &WaeOptions, sink: &mut Sink<'_>) -> Result<()> {
    let function = READ_IMAGES.name();
    let paths = files.files().map_err(|message| exec_datafusion_err!("{function}: {message}"))?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for path in paths {
        let file = read_file(&path, options)?;
        bytes += file.bytes.as_ref().map_or(0, Vec::len);
        batch.push(file);
        if batch.len() == BATCH_ROWS || bytes >= BATCH_BYTES {
            bytes = 0;
            if !sink(record_batch(&std::mem::take(&mut batch))?) {
                return Ok(());
            }
        }
    }
    sink(record_batch(&batch)?);
    Ok(())
}

struct File {
    path: String,
    bytes: Option<Vec<u8>>,
    modified: Option<i64>,
}

/// Reads a file; one that cannot be read, or is too large, is an error or NULL as `wae.on_error` says.
fn read_file(path: &Path, options: &WaeOptions) -> Result<File> {
    let function = READ_IMAGES.name();
    let max = options.limits().max_image_bytes.min(MAX_FILE_BYTES);
    let name = path.display().to_string();
    let read = || {
        let metadata = fs::metadata(path).map_err(|e| exec_datafusion_err!("{function}: {name}: {e}"))?;
        if metadata.len() > max as u64 {
            let bytes = metadata.len();
            return exec_err!("{function}: {name} has {bytes} bytes, expected at most {max} (wae.max_image_bytes)");
        }
        let bytes = fs::read(path).map_err(|e| exec_datafusion_err!("{function}: {name}: {e}"))?;
        Ok((bytes, metadata.modified().ok().map(microseconds)))
    };
    match read() {
        Ok((bytes, modified)) => Ok(File { path: name.clone(), bytes: Some(bytes), modified }),
        Err(e) if options.on_error() == OnError::Null => {
            log::warn!("{}; its bytes are NULL", e.strip_backtrace());
            Ok(File { path: name.clone(), bytes: None, modified: None })
        }
        Err(e) => Err(e),
    }
}

/// Microseconds since 1970; negative before.
fn microseconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

fn record_batch(files: &[File]) -> Result<RecordBatch> {
    let modified = TimestampMicrosecondArray::from_iter(files.iter().map(|f| f.modified)).with_timezone("UTC");
    let paths = StringArray::from_iter_values(files.iter().map(|f| &f.path));
    let bytes = BinaryArray::from_iter(files.iter().map(|f| f.bytes.as_deref()));
    Ok(RecordBatch::try_new(schema(), vec![Arc::new(paths), Arc::new(bytes), Arc::new(modified)])?)
}
