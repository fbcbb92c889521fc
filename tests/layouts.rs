//! The layout of images survives whatever SQL hands them on: tensors of all layouts, through random queries, cost what
//! the same pictures cost as plain tensors, or the query is refused with an error that names the layout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/forms.rs"]
mod forms;
#[path = "support/session.rs"]
mod session;

use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Float32Type, Int64Type};
use datafusion::common::Result;
use datafusion::prelude::SessionContext;
use forms::{FORMS, Form, table};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use session::{query, run};
use tempfile::TempDir;

fn name(form: Form, packing: usize) -> String {
    format!("t_{form:?}_{packing}").to_lowercase()
}

/// A context with every table and a model.
async fn prepare(models: &TempDir) -> SessionContext {
    let ctx = session::context(models.path()).await;
    for form in FORMS.into_iter().chain([Form::Bare]) {
        for packing in 0..3 {
            ctx.register_batch(name(form, packing), table(form, packing)).unwrap();
        }
    }
    query(&ctx, "SELECT * FROM wae_train('t_named_0', 'm', '{\"network\": \"4\", \"epochs\": 3, \"holdout\": 0, \"batch_size\": 5}')").await;
    query(&ctx, "SET wae.model = 'm'").await;
    ctx
}

/// The cost of each row, which two of three tables may lack.
async fn costs(ctx: &SessionContext, relation: &str) -> Result<Vec<Option<f32>>> {
    let batches =
        run(ctx, &format!("SELECT id, wae_reconstruction_cost(image) AS c FROM {relation} ORDER BY id")).await?;
    let mut costs = Vec::new();
    for batch in batches {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let values = batch.column(1).as_primitive::<Float32Type>();
        for row in 0..batch.num_rows() {
            assert_eq!(ids.value(row), costs.len() as i64, "a row an image");
            costs.push(values.is_valid(row).then(|| values.value(row)));
        }
    }
    Ok(costs)
}

/// A query over a relation `(id, image)` that hands the images on. `other` is a table of the same images in a form that
/// a union can bring together with it, `fresh` a name that nothing has.
const STEPS: [&str; 18] = [
    "(SELECT id, CASE WHEN id >= 0 THEN image END AS image FROM {rel})",
    "(SELECT id, CASE WHEN id < 3 THEN image ELSE image END AS image FROM {rel})",
    "(SELECT id, coalesce(image, image) AS image FROM {rel})",
    "(SELECT * FROM {rel} WHERE id < 3 UNION ALL SELECT * FROM {rel} WHERE id >= 3)",
    "(SELECT * FROM {rel} WHERE id < 3 UNION ALL SELECT * FROM {other} WHERE id >= 3)",
    "(SELECT * FROM {other} WHERE id < 2 UNION ALL SELECT * FROM {rel} WHERE id >= 2)",
    "(SELECT id, picture AS image FROM (SELECT id, image AS picture FROM {rel} ORDER BY id DESC LIMIT 10) AS sub)",
    "(SELECT id, first_value(image) AS image FROM {rel} GROUP BY id)",
    "(SELECT id, unnest(images) AS image FROM (SELECT id, array_agg(image) AS images FROM {rel} GROUP BY id))",
    "(SELECT b.id, a.image FROM {rel} AS a RIGHT JOIN (VALUES (0), (1), (2), (3), (4), (5)) AS b (id) ON a.id = b.id)",
    "(SELECT id, last_value(image) OVER (PARTITION BY id) AS image FROM {rel})",
    "(SELECT id, s['i'] AS image FROM (SELECT id, first_value(named_struct('n', id, 'i', image)) AS s FROM {rel} GROUP BY id))",
    "(SELECT id, make_array(image)[1] AS image FROM {rel})",
    "(WITH w AS (SELECT id AS n, image AS picture FROM {rel}) SELECT n AS id, picture AS image FROM w)",
    "(SELECT DISTINCT ON (id) id, image FROM {rel})",
    "(SELECT id, image_decode(image, 8, 6, 3) AS image FROM {rel})",
    "CREATE VIEW {fresh} AS SELECT * FROM {rel}",
    "CREATE TABLE {fresh} AS SELECT * FROM {rel}",
];

/// Forms whose values a union brings together: of one storage.
fn beside(form: Form, choice: usize) -> Form {
    let fixed = [Form::Named, Form::Unnamed, Form::ChannelsFirst, Form::Permuted, Form::Bare];
    let variable = [Form::VariableFirst, Form::VariableLast];
    [&fixed[..], &variable]
        .into_iter()
        .find(|forms| forms.contains(&form))
        .map_or(form, |forms| forms[choice % forms.len()])
}

#[derive(Debug, Clone)]
struct Case {
    form: Form,
    packing: usize,
    /// Each step with the choice of its other table.
    steps: Vec<(usize, usize)>,
}

fn case() -> impl Strategy<Value = Case> {
    let steps = prop::collection::vec((0..STEPS.len(), 0..5_usize), 1..4);
    let form = prop::sample::select(FORMS.to_vec());
    (form, 0..3_usize, steps).prop_map(|(form, packing, steps)| Case { form, packing, steps })
}

/// The costs of a case.
async fn answer(ctx: &SessionContext, case: &Case) -> Result<Vec<Option<f32>>> {
    static FRESH: AtomicUsize = AtomicUsize::new(0);
    let mut relation = name(case.form, case.packing);
    let mut form = case.form;
    for (step, choice) in &case.steps {
        let fresh = format!("fresh_{}", FRESH.fetch_add(1, Ordering::Relaxed));
        let other = name(beside(form, *choice), 0);
        if STEPS[*step].contains("image_decode") {
            form = Form::Named;
        }
        let sql = STEPS[*step].replace("{rel}", &relation).replace("{other}", &other).replace("{fresh}", &fresh);
        if sql.starts_with("CREATE") {
            run(ctx, &sql).await?;
            relation = fresh;
        } else {
            relation = sql;
        }
    }
    costs(ctx, &relation).await
}

/// Whether a message speaks of the layout, and says what to write.
fn names_the_layout(message: &str) -> bool {
    message.contains("image_decode(") && (message.contains("layout") || message.contains("order"))
}

/// Whether the query fails without the plugin, too: Arrow casts no lists into dictionaries, as a UNION asks it to, and
/// CREATE TABLE AS refuses the metadata of some UNIONs.
fn is_upstream(message: &str) -> bool {
    let messages = ["Unsupported output type for dictionary packing", "Mismatch between schema and batches"];
    messages.iter().any(|upstream| message.contains(upstream))
}

#[test]
fn random_queries_give_the_costs_of_the_plain_column() {
    let models = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ctx = runtime.block_on(prepare(&models));
    let expected = runtime.block_on(costs(&ctx, "t_encoded_0")).unwrap();
    assert_eq!(expected.iter().filter(|cost| cost.is_none()).count(), 1);
    let given = AtomicUsize::new(0);
    let cases = 2_000;
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    // The same cases in every run: what else DataFusion refuses must not fail a run by chance.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&case(), |case| {
        match runtime.block_on(answer(&ctx, &case)) {
            Ok(costs) => {
                given.fetch_add(1, Ordering::Relaxed);
                prop_assert_eq!(costs.len(), expected.len());
                for (got, want) in costs.iter().zip(&expected) {
                    prop_assert_eq!(got.is_some(), want.is_some());
                    let close = got.unwrap_or_default() - want.unwrap_or_default();
                    prop_assert!(close.abs() <= 1e-4 * want.unwrap_or(1.0), "{:?}, expected {:?}", costs, expected);
                }
            }
            Err(e) => {
                let message = e.strip_backtrace();
                prop_assert!(names_the_layout(&message) || is_upstream(&message), "{}", message);
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    let given = given.into_inner();
    eprintln!("{given} of {cases} cases gave costs");
    assert!(given * 10 >= cases as usize * 8, "{given} of {cases} gave costs");
}
