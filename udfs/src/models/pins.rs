//! One version of a model a statement.
//!
//! A statement's calls are planned one after the other, and the model's file may be replaced between two of them: a
//! row's cost and its p-value would then come from two versions. The first call that is planned decides for those after
//! it.
//!
//! Its version holds for as long as a plan of the statement holds the model, however long planning takes. The cache's
//! copy does not count: each statement holds an [`Arc`] of its own, which shares the weights.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use datafusion::common::Result;
use datafusion::logical_expr::simplify::SimplifyContext;
use wae_core::{Device, Precision};

use super::store::StoredFile;
use super::{LoadedModel, file, load, lock};
use crate::options::WaeOptions;

/// The longest that a version is taken for new calls. It is for hosts that plan all their statements with one
/// `SessionState`, which gives them one start time: without a limit, statements that overlap would hand on the version
/// of the first for ever. It is far longer than planning takes.
const LONGEST: Duration = Duration::from_secs(600);

/// The version of a model that a statement has taken.
#[derive(Debug)]
struct StatementVersion {
    statement: i64,
    /// Held, so that its key stays its own.
    file: StoredFile,
    place: (Precision, Device),
    at: Instant,
    /// Alive for as long as a call of the statement holds it: the statement's own, and not the cache's.
    model: Weak<LoadedModel>,
}

static PINS: Mutex<Vec<StatementVersion>> = Mutex::new(Vec::new());

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
    // The moment at which a statement began stands for it: of two that share it to the nanosecond, both get one
    // version.
    let Some(statement) = info.query_execution_start_time().and_then(|start| start.timestamp_nanos_opt()) else {
        return load(function, name, options);
    };
    let file = file(function, name, options)?;
    let place = (options.precision(), options.device().resolved());
    let key = file.key();
    let mut pins = lock(&PINS);
    pins.retain(|pin| pin.at.elapsed() < LONGEST && pin.model.strong_count() > 0);
    let known = pins.iter().find(|p| p.statement == statement && p.place == place && p.file.key() == key);
    if let Some(model) = known.and_then(|pin| pin.model.upgrade()) {
        return Ok(model);
    }
    // Other statements plan meanwhile: reading may take its time.
    drop(pins);
    let model = load(function, name, options)?;
    lock(&PINS).push(StatementVersion { statement, file, place, at: Instant::now(), model: Arc::downgrade(&model) });
    Ok(model)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use datafusion::config::ExtensionOptions;

    use super::*;

    /// A folder whose model `m` is a golden file.
    struct Models(tempfile::TempDir);

    impl Models {
        /// Puts another file in the place of `m`.
        fn replace(&self, golden: &str) {
            let from =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/golden/{golden}.model.safetensors"));
            let bytes = std::fs::read(from).unwrap();
            wae_core::checkpoint::write_atomically(&self.0.path().join("m.safetensors"), &bytes).unwrap();
        }

        /// The model as a call of a statement sees it.
        fn load(&self, statement: &SimplifyContext) -> Arc<LoadedModel> {
            let mut options = WaeOptions::default();
            options.set("model_dir", &self.0.path().display().to_string()).unwrap();
            load_for_statement("f", "m", &options, statement).unwrap()
        }
    }

    #[test]
    fn a_version_is_that_of_a_statement_while_a_call_holds_it() {
        let models = Models(tempfile::tempdir().unwrap());
        let statement = SimplifyContext::builder().with_current_time().build();
        let later = statement.query_execution_start_time().map(|start| start + Duration::from_secs(1));
        let next = SimplifyContext::builder().with_query_execution_start_time(later).build();

        models.replace("golden");
        let first = models.load(&statement);
        models.replace("digit");
        let second = models.load(&statement);
        assert_eq!(second.sha256(), first.sha256(), "the first call decides for those after it");
        let other = models.load(&next);
        assert_ne!(other.sha256(), first.sha256(), "another statement sees what the file holds");

        // Hosts may give the next statement the same start. The cache holds the model still, but no call does.
        let old = first.sha256().to_owned();
        drop((first, second));
        assert_eq!(models.load(&statement).sha256(), other.sha256());
        models.replace("golden");
        assert_eq!(models.load(&next).sha256(), other.sha256());
        drop(other);
        assert_eq!(models.load(&next).sha256(), old);
    }
}
