//! One version of a model a statement.
//!
//! A statement's calls are planned one after the other, and the model's file may be replaced between two of them: a row's
//! cost and its p-value would then come from two versions. The first call that is planned decides for those after it.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use datafusion::common::Result;
use datafusion::logical_expr::simplify::SimplifyContext;
use wae_core::{Device, Precision};

use super::store::StoredFile;
use super::{LoadedModel, file, load, lock};
use crate::options::WaeOptions;

/// How long planning a statement takes at most. Hosts that plan many statements with one `SessionState` give them one start
/// time: those that come later see what the file holds then.
const PLANNING: Duration = Duration::from_secs(10);

/// What a statement has taken.
#[derive(Debug)]
struct Pin {
    statement: i64,
    /// Held, so that its key stays its own.
    file: StoredFile,
    place: (Precision, Device),
    at: Instant,
    /// Alive for as long as a call of the statement holds it.
    model: Weak<LoadedModel>,
}

static PINS: Mutex<Vec<Pin>> = Mutex::new(Vec::new());

/// The model of a name as a statement sees it while it is planned.
///
/// # Errors
/// Those of [`load`].
pub(crate) fn load_for_statement(
    function: &str,
    name: &str,
    options: &WaeOptions,
    info: &SimplifyContext,
) -> Result<Arc<LoadedModel>> {
    // The moment at which a statement began stands for it: of two that share it to the nanosecond, both get one version.
    let Some(statement) = info.query_execution_start_time().and_then(|start| start.timestamp_nanos_opt()) else {
        return load(function, name, options);
    };
    let (file, place) = (file(function, name, options)?, (options.precision(), options.device().resolved()));
    let key = file.key();
    let mut pins = lock(&PINS);
    pins.retain(|pin| pin.at.elapsed() < PLANNING && pin.model.strong_count() > 0);
    let known = pins.iter().find(|p| p.statement == statement && p.place == place && p.file.key() == key);
    if let Some(model) = known.and_then(|pin| pin.model.upgrade()) {
        return Ok(model);
    }
    // Other statements plan meanwhile: reading may take its time.
    drop(pins);
    let model = load(function, name, options)?;
    lock(&PINS).push(Pin { statement, file, place, at: Instant::now(), model: Arc::downgrade(&model) });
    Ok(model)
}
