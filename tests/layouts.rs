//! The layout of images survives whatever SQL hands them on: tensors of all layouts, through random queries, cost what
//! the same pictures cost as plain tensors, or the query is refused with an error that names the layout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/forms.rs"]
mod forms;
#[path = "support/session.rs"]
mod session;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Float32Type, Int64Type};
use datafusion::common::Result;
use datafusion::object_store::memory::InMemory;
use datafusion::prelude::SessionContext;
use forms::{FORMS, Form, table};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rstest::rstest;
use session::{failure, query, run};
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
const STEPS: [&str; 19] = [
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
    "COPY (SELECT * FROM {rel}) TO '{file}'",
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
async fn answer(ctx: &SessionContext, models: &TempDir, case: &Case) -> Result<Vec<Option<f32>>> {
    static FRESH: AtomicUsize = AtomicUsize::new(0);
    let mut relation = name(case.form, case.packing);
    let mut form = case.form;
    for (step, choice) in &case.steps {
        let fresh = format!("fresh_{}", FRESH.fetch_add(1, Ordering::Relaxed));
        let file = format!("{}/{fresh}.parquet", models.path().display());
        let other = name(beside(form, *choice), 0);
        if STEPS[*step].contains("image_decode") {
            form = Form::Named;
        }
        let sql = STEPS[*step].replace("{rel}", &relation).replace("{other}", &other).replace("{fresh}", &fresh);
        if sql.starts_with("CREATE") {
            run(ctx, &sql).await?;
            relation = fresh;
        } else if sql.starts_with("COPY") {
            run(ctx, &sql.replace("{file}", &file)).await?;
            relation = format!("'{file}'");
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

/// Whether the query fails without the plugin, too: Arrow casts no lists into dictionaries, as a UNION asks it to,
/// CREATE TABLE AS refuses the metadata of some UNIONs, and Parquet's writer has no dictionaries of lists.
fn is_upstream(message: &str) -> bool {
    let messages = [
        "Unsupported output type for dictionary packing",
        "Mismatch between schema and batches",
        "NYI: Datatype Dictionary(",
    ];
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
        match runtime.block_on(answer(&ctx, &models, &case)) {
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

const LAYOUTS_DIFFER: &str = "column 'image': the files of the table have images of different layouts, expected one: ";

/// Writes a table of a form to each of two files of a folder or store.
async fn write(ctx: &SessionContext, folder: &str, forms: [Form; 2], ending: &str) {
    for (form, file) in forms.into_iter().zip(["a", "b"]) {
        query(ctx, &format!("COPY {} TO '{folder}{file}.{ending}'", name(form, 0))).await;
    }
}

/// DataFusion gives the lists of one file the type of another.
#[rstest]
#[case::unnamed_last([Form::ChannelsFirst, Form::Bare])]
#[case::unnamed_first([Form::Bare, Form::ChannelsFirst])]
#[case::plain([Form::Named, Form::Bare])]
#[tokio::test(flavor = "multi_thread")]
async fn files_of_one_table_have_one_layout(
    #[case] forms: [Form; 2],
    // DataFusion does not read the schema of an Arrow file in a store that streams it.
    #[values(("parquet", false), ("arrow", false), ("parquet", true))] place: (&str, bool),
) {
    let (ending, in_store) = place;
    let models = TempDir::new().unwrap();
    let ctx = prepare(&models).await;
    let folder =
        if in_store { "memory://host/folder/".to_owned() } else { format!("{}/folder/", models.path().display()) };
    ctx.register_object_store(&"memory://host".parse().unwrap(), Arc::new(InMemory::new()));
    write(&ctx, &folder, forms, ending).await;
    query(&ctx, &format!("CREATE EXTERNAL TABLE listed STORED AS {ending} LOCATION '{folder}'")).await;
    let from_path = format!("'{folder}'");
    for table in ["listed", &from_path] {
        for sql in [
            "SELECT image FROM {table}",
            "SELECT image_decode(image, 8, 6, 3) FROM {table}",
            "SELECT wae_reconstruction_cost(image) FROM {table} WHERE id < 2",
            "SELECT id FROM {table} ORDER BY image_sharpness(image) LIMIT 1",
            "CREATE TABLE copied AS SELECT * FROM {table}",
            "SELECT * FROM wae_train((SELECT image FROM {table}), model => 'other')",
            "SELECT array_agg(image) FROM {table}",
        ] {
            let message = failure(&ctx, &sql.replace("{table}", table)).await;
            assert!(message.contains(LAYOUTS_DIFFER) && names_the_layout(&message), "{sql}: {message}");
            let unnamed = if forms[0] == Form::Bare { "a" } else { "b" };
            assert!(message.contains(&format!("{folder}{unnamed}.{ending}' names no tensor type")), "{message}");
            assert_eq!(
                message.matches(&format!(".{ending}' says arrow.fixed_shape_tensor {{\"shape\":[")).count(),
                1,
                "{message}"
            );
        }
        // What does not read the images has nothing to ask of them.
        query(&ctx, &format!("SELECT count(*), sum(id) FROM {table} WHERE id < 4")).await;
    }
}

/// One file of a folder is read by the type that its own schema names, even if the scan leaves the other out.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_not_read_by_the_type_of_another() {
    let models = TempDir::new().unwrap();
    let ctx = prepare(&models).await;
    let folder = models.path().display();
    for (form, part) in [(Form::ChannelsFirst, 0), (Form::Bare, 1)] {
        query(&ctx, &format!("COPY {} TO '{folder}/parts/part={part}/a.parquet'", name(form, 0))).await;
    }
    let table =
        format!("CREATE EXTERNAL TABLE parts STORED AS PARQUET PARTITIONED BY (part) LOCATION '{folder}/parts/'");
    query(&ctx, &table).await;
    query(&ctx, "SELECT image_decode(image, 8, 6, 3) FROM parts WHERE part = 0").await;
    let message = failure(&ctx, "SELECT image_decode(image, 8, 6, 3) FROM parts WHERE part = 1").await;
    assert!(message.contains("the table says arrow.fixed_shape_tensor"), "{message}");
    assert!(message.contains("part=1/a.parquet' names no tensor type"), "{message}");
}

/// Files whose schemas say the same, or of whose order there is no question, are one table.
#[rstest]
#[case::named([Form::ChannelsFirst, Form::ChannelsFirst])]
#[case::variable([Form::VariableLast, Form::VariableLast])]
#[case::nested([Form::Nested, Form::Nested])]
#[case::encoded([Form::Encoded, Form::Encoded])]
#[tokio::test(flavor = "multi_thread")]
async fn files_that_agree_are_one_table(#[case] forms: [Form; 2]) {
    let models = TempDir::new().unwrap();
    let ctx = prepare(&models).await;
    let folder = format!("{}/folder/", models.path().display());
    write(&ctx, &folder, forms, "parquet").await;
    let sql = "SELECT count(image_decode(image, 8, 6, 3)) AS n FROM";
    let read = session::text(&ctx, &format!("{sql} '{folder}'")).await;
    let expected = format!("{sql} (SELECT * FROM t_encoded_0 UNION ALL SELECT * FROM t_encoded_0)");
    assert_eq!(read, session::text(&ctx, &expected).await);
}
