//! The plugin where SQL scripts cannot test it: when rows arrive, what is cancelled, which version of a model is used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use rstest::rstest;
use session::{ROOT, TEST, TRAIN, failure, query, run, text, weights, with_plugin};
use tempfile::TempDir;

/// A context with the plugin, its models in `dir`, and the clothes as tables `train` (700 rows) and `test`, one kind
/// each.
async fn context(dir: &Path) -> SessionContext {
    let ctx = session::context(dir).await;
    prepare(&ctx).await;
    ctx
}

/// A folder for models. The thread pool starts here, since its threads would inherit the name of a training's thread.
fn models() -> TempDir {
    rayon::current_num_threads();
    TempDir::new().unwrap()
}

async fn prepare(ctx: &SessionContext) {
    ctx.register_parquet("all_train", TRAIN, Default::default()).await.unwrap();
    ctx.register_parquet("all_test", TEST, Default::default()).await.unwrap();
    for sql in [
        "CREATE TABLE train AS SELECT image FROM all_train WHERE label = 0",
        "CREATE TABLE test AS SELECT image FROM all_test WHERE label = 1",
    ] {
        query(ctx, sql).await;
    }
}

fn train(name: &str, options: &str) -> String {
    format!("SELECT epoch FROM wae_train((SELECT image FROM train), model => '{name}', network => '8,16', {options})")
}

/// The message of planning a query that does not pass it.
async fn planning_error(ctx: &SessionContext, sql: &str) -> String {
    match ctx.sql(sql).await {
        Err(error) => error.strip_backtrace(),
        Ok(frame) => frame.create_physical_plan().await.expect_err(sql).strip_backtrace(),
    }
}

/// Waits until a condition holds; whoever waits ten minutes waits for ever.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(600), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_is_sent_when_it_ends_and_shows_in_the_history() {
    let dir = models();
    let ctx = context(dir.path()).await;
    let mut stream = ctx.sql(&train("streamed", "epochs => 100000")).await.unwrap().execute_stream().await.unwrap();
    for epoch in 1..=2 {
        let batch = stream.next().await.unwrap().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[epoch]);
    }
    let history = query(&ctx, "SELECT count(*) FROM wae_history('streamed')").await;
    assert!(history[0].column(0).as_primitive::<Int64Type>().value(0) >= 2);

    // A second training of the name is refused while the first runs, even one that may overwrite.
    let error = failure(&ctx, &train("streamed", "epochs => 1, overwrite => true")).await;
    assert!(error.contains("wae_train: model 'streamed' is being trained already"), "{error}");

    // Once the first is dropped, another begins, and nothing is left of the first.
    drop(stream);
    query(&ctx, &train("streamed", "epochs => 1")).await;
    let history = text(&ctx, "SELECT count(*) AS epochs FROM wae_history('streamed')").await;
    assert!(history.contains("| 1      |"), "{history}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_stops_the_training_thread_and_saves_nothing() {
    let training_threads = |limit: &str| {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok())
            .filter(|c| c.trim() == limit)
            .count()
    };
    let dir = models();
    let ctx = context(dir.path()).await;
    let rows = query(&ctx, &(train("limited", "epochs => 100000") + " LIMIT 2")).await;
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    // Other tests of this binary train on threads of this name too, but none for ever.
    eventually("the training thread ends", || training_threads("wae_train") == 0).await;
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// One training, asked for in three ways.
#[tokio::test(flavor = "multi_thread")]
async fn sql_json_and_rust_give_the_same_tensors() {
    let dir = models();
    let ctx = context(dir.path()).await;
    let named =
        "objective => 'gan', adversary_widths => '16,16', noise => 0.1, cost => 'structural', epochs => 2, seed => 5";
    query(&ctx, &train("named", named)).await;
    let json = serde_json::json!({"objective": "gan", "adversary_widths": "16,16", "noise": 0.1, "cost": "structural",
                                  "epochs": 2, "seed": 5, "network": "8,16"});
    query(&ctx, &format!("SELECT * FROM wae_train((SELECT image FROM train), 'json', '{json}')")).await;

    let serde_json::Value::Object(options) = json else { unreachable!() };
    let options = wae_core::TrainOptions::try_from_options(options).unwrap();
    let mut dataset = wae_core::DatasetBuilder::new(&options, Default::default(), false);
    for batch in query(&ctx, "SELECT image FROM train").await {
        let column = wae_core::ImageColumn::try_new(batch.schema().field(0), batch.column(0), None).unwrap();
        dataset.push(&column).unwrap();
    }
    let mut trainer = wae_core::Trainer::try_new(options, dataset.finish().unwrap()).unwrap();
    trainer.epochs().for_each(|epoch| assert!(epoch.is_ok(), "{epoch:?}"));
    trainer.model().unwrap().write(dir.path().join("rust.safetensors")).unwrap();

    let of = |name: &str| weights(&dir.path().join(format!("{name}.safetensors")));
    assert!(of("named") == of("json") && of("named") == of("rust"), "weights and calibration, bit for bit");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_do_not_change_the_model() {
    let dir = models();
    let mut scores = Vec::new();
    for partitions in [1, 4] {
        let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(100);
        let ctx = with_plugin(SessionContext::new_with_config(config), dir.path()).await;
        prepare(&ctx).await;
        let frame = ctx.sql("SELECT image FROM train").await.unwrap();
        let schema = Arc::clone(frame.schema().inner());
        let batches = frame.collect().await.unwrap();
        let mut parts = vec![Vec::new(); partitions];
        for (i, batch) in batches.into_iter().rev().enumerate() {
            parts[i % partitions].push(batch);
        }
        ctx.deregister_table("train").unwrap();
        ctx.register_table("train", Arc::new(MemTable::try_new(schema, parts).unwrap())).unwrap();
        let name = format!("of_{partitions}");
        query(&ctx, &train(&name, "epochs => 2, seed => 7")).await;
        let sql = format!(
            "SELECT wae_encode(image, '{name}') AS z, wae_reconstruction_cost(image, '{name}') AS cost,
                    wae_p_value(image, '{name}') AS p FROM test ORDER BY image['bytes']"
        );
        scores.push(text(&ctx, &sql).await);
    }
    assert!(scores[0] == scores[1], "the same seed and rows give the same tensors and calibration, bit for bit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_uses_the_model_that_it_was_planned_with() {
    let dir = models();
    let ctx = context(dir.path()).await;
    let sql = "SELECT wae_encode(image, 'm') AS z, wae_reconstruction_cost(image, 'm') AS cost FROM test
               ORDER BY image['bytes']";
    query(&ctx, &train("m", "epochs => 1, latent_dim => 3")).await;
    let before = text(&ctx, sql).await;
    let planned = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();

    query(&ctx, &train("m", "epochs => 1, latent_dim => 5, overwrite => true")).await;
    let replaced = collect(Arc::clone(&planned), ctx.task_ctx()).await.unwrap();
    assert_eq!(pretty_format_batches(&replaced).unwrap().to_string(), before);
    std::fs::remove_file(dir.path().join("m.safetensors")).unwrap();
    let removed = collect(planned.reset_state().unwrap(), ctx.task_ctx()).await.unwrap();
    assert_eq!(pretty_format_batches(&removed).unwrap().to_string(), before);

    let error = planning_error(&ctx, sql).await;
    assert!(error.contains("wae_encode: no model 'm'"), "{error}");
    query(&ctx, &train("m", "epochs => 1, latent_dim => 5")).await;
    let after = text(&ctx, &format!("SELECT DISTINCT arrow_typeof(z) FROM ({sql})")).await;
    assert!(after.contains("FixedSizeList(5 x Float32)"), "{after}");
}

/// Through the C interface, and where a plan was decoded by name, nothing is pinned and literals come as arrays.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_pinned_reads_the_model_when_it_runs() {
    let dir = models();
    let ctx = context(dir.path()).await;
    query(&ctx, &train("m", "epochs => 1, latent_dim => 3")).await;
    let batch = query(&ctx, "SELECT image FROM test LIMIT 2").await.swap_remove(0);
    let function = Arc::clone(&ctx.state().scalar_functions()["wae_encode"]);
    let model = ScalarValue::from("m");
    let arg_fields =
        vec![Arc::new(batch.schema().field(0).clone()), Arc::new(Field::new("model", DataType::Utf8, false))];
    let return_field = function
        .return_field_from_args(ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &[None, Some(&model)] })
        .unwrap();
    let invoke = |names: Vec<&str>| {
        function.invoke_with_args(ScalarFunctionArgs {
            args: vec![
                ColumnarValue::Array(Arc::clone(batch.column(0))),
                ColumnarValue::Array(Arc::new(StringArray::from(names))),
            ],
            arg_fields: arg_fields.clone(),
            number_rows: 2,
            return_field: Arc::clone(&return_field),
            config_options: Arc::clone(ctx.state().config_options()),
        })
    };
    let codes = invoke(vec!["m", "m"]).unwrap().into_array(2).unwrap();
    assert_eq!((codes.data_type(), codes.null_count()), (return_field.data_type(), 0));
    let error = invoke(vec!["m", "other"]).unwrap_err().strip_backtrace();
    assert!(error.contains("wae_encode: model must be the same in all rows"), "{error}");

    query(&ctx, &train("m", "epochs => 1, latent_dim => 5, overwrite => true")).await;
    let error = invoke(vec!["m", "m"]).unwrap_err().strip_backtrace();
    assert!(error.contains("wae_encode: model 'm' was replaced by another while the query ran"), "{error}");
}

/// A model is trained or calibrated, one at a time; a calibration that failed leaves the file as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_calibration_replaces_the_file_in_one_step() {
    let dir = models();
    let ctx = context(dir.path()).await;
    query(&ctx, &train("m", "epochs => 1")).await;
    let path = dir.path().join("m.safetensors");
    let calibrate = "SELECT * FROM wae_calibrate('test', model => 'm')";
    let before = std::fs::read(&path).unwrap();
    // A query that was planned before scores, and ranks, by the file that it was planned with.
    let scores = "SELECT wae_p_value(image, 'm') AS p FROM test ORDER BY image['bytes']";
    let planned = ctx.sql(scores).await.unwrap().create_physical_plan().await.unwrap();
    let old = text(&ctx, scores).await;

    run(&ctx, "SELECT * FROM wae_calibrate((SELECT image FROM test WHERE false), 'm')").await.unwrap_err();
    let broken = "(SELECT image['bytes'] AS image FROM test UNION ALL SELECT CAST('x' AS BYTEA))";
    run(&ctx, &format!("SELECT * FROM wae_calibrate({broken}, 'm')")).await.unwrap_err();
    assert!(std::fs::read(&path).unwrap() == before, "a calibration that failed changes nothing");

    // The model is trained anew meanwhile: refused, and nothing is changed.
    let training = ctx.sql(&train("m", "epochs => 100000, overwrite => true")).await.unwrap();
    let mut training = training.execute_stream().await.unwrap();
    training.next().await.unwrap().unwrap();
    let error = failure(&ctx, calibrate).await;
    assert!(error.contains("wae_calibrate: model 'm' is being trained already"), "{error}");
    drop(training);

    let calibrated = text(&ctx, calibrate).await;
    assert!(calibrated.contains("| m     | 150  | 0       | 0.006622"), "{calibrated}");
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 1, "no temporary file is left");
    let pinned = collect(planned, ctx.task_ctx()).await.unwrap();
    assert_eq!(pretty_format_batches(&pinned).unwrap().to_string(), old);
    assert_ne!(text(&ctx, scores).await, old, "the cache sees the new file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_the_source_under_the_calibration() {
    let dir = models();
    let ctx = context(dir.path()).await;
    query(&ctx, &train("m", "epochs => 1")).await;
    let sql = format!("SELECT * FROM wae_calibrate((SELECT image FROM '{TEST}' WHERE label = 0), model => 'm')");
    let plan = ctx.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    assert_eq!(lines[0], "WaeCalibrateExec: model=m", "{shown}");
    assert!(lines[1..].iter().any(|l| l.starts_with("DataSourceExec") && l.contains("test.parquet")), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_found_at_planning() {
    let dir = models();
    let ctx = context(dir.path()).await;
    query(&ctx, &train("m", "epochs => 1")).await;
    for (sql, message) in [
        ("SELECT wae_encode(image, 'nope') FROM test", "wae_encode: no model 'nope' in"),
        (
            "SELECT wae_encode(image_decode(image, 64, 64, 3), 'm') FROM test",
            "wae_encode: image has shape [64, 64, 3], model 'm' takes [28, 28, 1]",
        ),
        (
            "SELECT * FROM wae_train((SELECT image FROM test), model => 'n', epoch => 1)",
            "unknown option 'epoch', expected one of",
        ),
        ("SELECT wae_encode(1, 'm') FROM test", "wae_encode: "),
        ("SELECT wae_is_outlier(image, 2, 'm') FROM test", "wae_is_outlier: alpha must be between 0 and 1"),
        ("SELECT wae_encode(image, image['path']) FROM test", "wae_encode: model must be a string literal"),
    ] {
        let error = planning_error(&ctx, sql).await;
        assert!(error.contains(message), "{error}");
        assert!(!error.contains("Internal"), "{error}");
    }
}

/// Each function that can be called, with its syntax, and no other.
#[tokio::test]
async fn show_functions_lists_the_functions() {
    let dir = models();
    let ctx = session::context(dir.path()).await;
    let mut listed = BTreeSet::new();
    for pattern in
        ["wae_%", "image_%", "auroc", "aupro", "pixel_auroc", "average_precision", "frechet_distance", "read_images"]
    {
        for batch in query(&ctx, &format!("SHOW FUNCTIONS LIKE '{pattern}'")).await {
            let names = batch.column_by_name("function_name").unwrap().as_string::<i32>();
            let kinds = batch.column_by_name("function_type").unwrap().as_string::<i32>();
            let syntax = batch.column_by_name("syntax_example").unwrap();
            for row in 0..batch.num_rows() {
                listed.insert((names.value(row).to_owned(), kinds.value(row).to_owned()));
                assert!(kinds.value(row) == "TABLE" || syntax.is_valid(row), "{}", names.value(row));
            }
        }
    }
    let scalars = datafusion_wae::all_functions().into_iter().map(|f| (f.name().to_owned(), "SCALAR"));
    let aggregates = datafusion_wae::all_aggregates().into_iter().map(|f| (f.name().to_owned(), "AGGREGATE"));
    // Without OVER, it is an aggregate that says so.
    let windows = ["WINDOW", "AGGREGATE"].map(|kind| ("wae_fdr".to_owned(), kind));
    let tables = ["wae_train", "wae_calibrate", "wae_sample", "wae_models", "wae_drop", "wae_rename", "wae_history"];
    let tables = tables.into_iter().chain(["read_images"]).map(|name| (name.to_owned(), "TABLE"));
    let expected = scalars.chain(aggregates).chain(windows).chain(tables);
    assert_eq!(listed, expected.map(|(name, kind)| (name, kind.to_owned())).collect());

    // No function that cannot be called is proposed.
    for name in ["wae_pass", "wae_pas", "__wae_pass_1"] {
        let error = planning_error(&ctx, &format!("SELECT {name}(1)")).await;
        assert!(error.contains("Did you mean") && !error.contains("'wae_pass'?"), "{error}");
    }
}

/// `information_schema` asks by names of arguments that a table's columns may have as well.
#[tokio::test(flavor = "multi_thread")]
async fn columns_of_the_names_that_information_schema_gives_are_columns() {
    let dir = models();
    let ctx = context(dir.path()).await;
    query(&ctx, &train("m", "epochs => 1")).await;
    query(&ctx, "CREATE TABLE odd AS SELECT image AS arg_0, 'm' AS arg_1, 28 AS arg_2, 1 AS arg_3 FROM test").await;
    for sql in ["SELECT wae_encode(arg_0, arg_1) FROM odd", "SELECT wae_reconstruct(arg_0, arg_1) FROM odd"] {
        run(&ctx, sql).await.unwrap_err();
    }
    let costs = text(&ctx, "SELECT max(abs(wae_reconstruction_cost(arg_0, 'm'))) > 0 AS found FROM odd").await;
    assert!(costs.contains("| true"), "{costs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_exists_takes_the_plugin() {
    let dir = models();
    let mut options = datafusion_wae::WaeOptions::default();
    datafusion::config::ExtensionOptions::set(&mut options, "wae.model_dir", &dir.path().display().to_string())
        .unwrap();
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_option_extension(options));
    ctx.register_parquet("train", TRAIN, Default::default()).await.unwrap();
    datafusion_wae::register_all(&ctx).unwrap();
    // The options that the context had already hold.
    query(&ctx, &train("m", "epochs => 1, batch_size => 500")).await;
    assert!(dir.path().join("m.safetensors").is_file());
    let count = text(&ctx, "SELECT count(wae_encode(image, 'm')) AS n FROM train").await;
    assert!(count.contains("| 4400 |"), "{count}");
}

#[tokio::test]
async fn the_positional_form_needs_no_planner() {
    let dir = models();
    let with = context(dir.path()).await;
    let state = with.state();
    let ctx = SessionContext::new_with_state(
        datafusion::execution::SessionStateBuilder::new_from_existing(state).with_relation_planners(vec![]).build(),
    );
    let sql = r#"SELECT epoch FROM wae_train((SELECT image FROM train), 'm', '{"epochs": 1, "network": "8"}')"#;
    query(&ctx, sql).await;
    query(&ctx, &sql.replace("(SELECT image FROM train)", "'train'").replace("'m'", "'n'")).await;
    let names = text(&ctx, "SELECT string_agg(name, ' ' ORDER BY name) FROM wae_models()").await;
    assert!(names.contains("| m n"), "{names}");
    for source in ["(SELECT image FROM test)", "'test'"] {
        let rows = text(&ctx, &format!("SELECT rows FROM wae_calibrate({source}, 'm')")).await;
        assert!(rows.contains("| 150"), "{rows}");
    }
    assert_eq!(query(&ctx, "SELECT * FROM wae_sample(3, 'm')").await[0].num_rows(), 3);
}

/// A frame takes values by name or by position, other ones each time.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_take_their_values_from_the_api() {
    let dir = models();
    let ctx = context(dir.path()).await;
    let sql =
        "SELECT images FROM wae_train((SELECT image FROM train LIMIT $1), model => $2, epochs => 1, network => $3,
        latent_dim => $4, holdout => 0, batch_size => 10)";
    let frame = ctx.sql(sql).await.unwrap();
    for (rows, model, latent_dim) in [(30_i64, "m", 4_u8), (50, "n", 6)] {
        let values: [ScalarValue; 4] = [rows.into(), model.into(), "8".into(), latent_dim.into()];
        let batches = frame.clone().with_param_values(values.to_vec()).unwrap().collect().await.unwrap();
        assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().values(), &[rows]);
    }

    let frame = ctx.sql("SELECT latent FROM wae_sample($n, model => $model) ORDER BY latent[1]").await.unwrap();
    let types = frame.logical_plan().get_parameter_types().unwrap();
    assert_eq!(types.into_values().collect::<BTreeSet<_>>(), BTreeSet::from([Some(DataType::Utf8)]));
    for (count, model, width) in [(3_i32, "m", 4), (5, "n", 6)] {
        let values = vec![("n", ScalarValue::from(count)), ("model", ScalarValue::from(model))];
        let frame = frame.clone().with_param_values(values).unwrap();
        assert!(matches!(frame.schema().field(0).data_type(), DataType::FixedSizeList(_, found) if *found == width));
        assert_eq!(frame.count().await.unwrap(), count as usize);
    }
    let error = frame.clone().with_param_values(vec![("n", ScalarValue::from(3))]).unwrap_err().strip_backtrace();
    assert!(error.contains("No value found for placeholder with name $model"), "{error}");
    let error = frame.collect().await.unwrap_err().strip_backtrace();
    assert!(error.contains("wae_sample: no value given for $model, $n, expected EXECUTE of a prepared"), "{error}");
}

#[tokio::test]
async fn a_plan_with_parameters_is_explained_with_and_without_values() {
    let dir = models();
    let ctx = context(dir.path()).await;
    let sql = "EXPLAIN SELECT epoch FROM wae_train((SELECT image FROM train LIMIT $1), model => $2)";
    let frame = ctx.sql(sql).await.unwrap();
    let without = pretty_format_batches(&frame.clone().collect().await.unwrap()).unwrap().to_string();
    assert!(without.contains("wae_train: no value given for $1, $2"), "{without}");
    let frame = frame.with_param_values(vec![ScalarValue::from(30_i64), ScalarValue::from("m")]).unwrap();
    let with = pretty_format_batches(&frame.collect().await.unwrap()).unwrap().to_string();
    assert!(with.contains("TableScan: wae_train") && with.contains("WaeTrainExec: model=m"), "{with}");
    assert!(with.contains("fetch=30") || with.contains("limit=30"), "{with}");
}

/// The memory of an aggregate is accounted: scores, the matrices of moments, codes.
#[rstest]
#[case::auroc("SELECT auroc(value, value % 2 = 0) FROM range(0, 100000)")]
#[case::average_precision("SELECT average_precision(value, value % 2 = 0) FROM range(0, 100000)")]
#[case::frechet_distance("SELECT frechet_distance(range(0, 200), NULL) FROM range(0, 10)")]
#[case::wae_mmd("SELECT wae_mmd(latent, 'm') FROM wae_sample(10000, 'm')")]
#[case::wae_mmd_p_value("SELECT wae_mmd_p_value(latent, 'wide') FROM wae_sample(2000, 'wide')")]
#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_that_does_not_fit_the_memory_pool_is_an_error(#[case] sql: &str) {
    let dir = models();
    let ctx = context(dir.path()).await;
    query(&ctx, &train("m", "epochs => 1")).await;
    query(&ctx, &train("wide", "epochs => 1, latent_dim => 64")).await;
    query(&ctx, sql).await;
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(200_000, 1.0).build_arc().unwrap();
    let ctx = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    let ctx = with_plugin(ctx, dir.path()).await;
    let error = failure(&ctx, sql).await;
    assert!(error.contains("Resources exhausted"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_the_source_under_the_training() {
    let dir = models();
    let ctx = context(dir.path()).await;
    let sql = format!("SELECT * FROM wae_train((SELECT image FROM '{TRAIN}'), model => 'm', epochs => 3)");
    let plan = ctx.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    assert!(lines[0].starts_with("WaeTrainExec: model=m, epochs=3"), "{shown}");
    assert!(lines[1..].iter().any(|l| l.starts_with("DataSourceExec") && l.contains("train.parquet")), "{shown}");
}

#[rstest]
#[case::tests("tests")]
#[case::examples("examples")]
#[case::benches("benches")]
fn every_target_is_declared(#[case] folder: &str) {
    let root = Path::new(ROOT);
    let manifests = ["Cargo.toml", "udfs/Cargo.toml", "udfs/ballista/Cargo.toml"]
        .map(|m| std::fs::read_to_string(root.join(m)).unwrap())
        .concat();
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // A study has a folder of its own.
        let path = if name.ends_with(".rs") { format!("{folder}/{name}") } else { format!("{folder}/{name}/main.rs") };
        assert!(!root.join(&path).is_file() || manifests.contains(&format!("{path}\"")), "{path}");
    }
}

/// `cargo run` takes the dependencies that `cargo test` compiled: with other features, DataFusion would be compiled
/// twice.
#[test]
fn running_and_testing_take_dependencies_of_the_same_features() {
    let features = |edges: &str| -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p} {f}", "--edges", edges]);
        let output = cargo.current_dir(root).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let run = features("normal");
    let test = features("normal,dev");
    assert!(run.len() > 300, "{run:?}");
    assert_eq!(run.difference(&test).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Every scalar function has a page with an example, and named arguments.
#[test]
fn every_function_is_documented() {
    for function in datafusion_wae::all_functions() {
        let name = function.name();
        let page = function.documentation().unwrap_or_else(|| panic!("{name} has no page"));
        assert!(page.syntax_example.starts_with(&format!("{name}(")), "{name}");
        assert!(page.sql_example.as_ref().is_some_and(|sql| sql.contains(name)), "{name}");
        let documented: Vec<_> = page.arguments.iter().flatten().map(|(argument, _)| argument.clone()).collect();
        assert_eq!(function.signature().parameter_names.as_ref(), Some(&documented), "{name}");
    }
}
