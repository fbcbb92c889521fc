//! Models in an object store: one in memory, and one over HTTP on the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "support/http_store.rs"]
mod http_store;
#[path = "support/session.rs"]
mod session;

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::config::ExtensionOptions;
use datafusion::prelude::SessionContext;
use datafusion_wae::WaeOptions;
use http_store::{HttpStore, Server};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use session::{TRAIN, failure, query, set_model_dir, text};
use url::Url;

/// A context whose models are in an object store, with 300 images of clothes as table `t`.
async fn context(url: &str, store: Arc<dyn ObjectStore>, dir: &str) -> SessionContext {
    let ctx = datafusion_wae::session_context().unwrap();
    ctx.register_object_store(&Url::parse(url).unwrap(), store);
    ctx.register_parquet("clothes", TRAIN, Default::default()).await.unwrap();
    query(&ctx, "CREATE TABLE t AS SELECT image FROM clothes LIMIT 300").await;
    set_model_dir(&ctx, dir).await;
    ctx
}

async fn count(ctx: &SessionContext, sql: &str) -> i64 {
    query(ctx, sql).await[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn train(name: &str, options: &str) -> String {
    format!(
        "SELECT epoch FROM wae_train((SELECT image FROM t), model => '{name}', network => '8,16', epochs => 2,
             holdout => 0.4{options})"
    )
}

/// Every function that reads or writes a model, on the models of `ctx`.
async fn use_models(ctx: &SessionContext, dir: &str) {
    assert_eq!(count(ctx, "SELECT count(*) FROM wae_models()").await, 0);
    let missing = failure(ctx, "SELECT wae_encode(image, 'm') FROM t").await;
    assert!(missing.contains(&format!("wae_encode: no model 'm' in '{dir}', which holds none")), "{missing}");

    query(ctx, &train("m", "")).await;
    query(ctx, &train("n", ", latent_dim => 3")).await;
    assert!(text(ctx, "SELECT name, latent_dim FROM wae_models()").await.contains("| n    | 3          |"));
    let refused = failure(ctx, &train("m", "")).await;
    let place = format!("model 'm' exists already ({dir}/m.safetensors), expected another name or overwrite => true");
    assert!(refused.contains(&place), "{refused}");
    let missing = failure(ctx, "SELECT wae_encode(image, 'o') FROM t").await;
    assert!(missing.contains(&format!("no model 'o' in '{dir}', which holds m, n")), "{missing}");

    query(ctx, "SET wae.model = 'm'").await;
    assert_eq!(count(ctx, "SELECT count(*) FROM wae_history()").await, 2);
    assert_eq!(count(ctx, "SELECT count(wae_decode(latent)) FROM wae_sample(5)").await, 5);
    let scores = "count(wae_encode(image)) + count(wae_reconstruct(image)) + count(wae_reconstruction_cost(image)) \
                  + count(wae_latent_distance(image)) + count(wae_anomaly_score(image)) + count(wae_p_value(image)) \
                  + count(wae_is_outlier(image, 0.1)) + count(wae_detect(image)) + count(wae_anomaly_map(image)) \
                  + count(wae_cost_map(image)) + count(wae_interpolate(wae_encode(image), wae_encode(image), 2))";
    assert_eq!(count(ctx, &format!("SELECT {scores} FROM t")).await, 3300);
    assert_eq!(count(ctx, "SELECT count(m) FROM (SELECT wae_mmd(wae_encode(image)) AS m FROM t)").await, 1);
    assert_eq!(count(ctx, "SELECT rows FROM wae_calibrate('t')").await, 300);
    assert_eq!(count(ctx, "SELECT calibrated FROM wae_models() WHERE name = 'm'").await, 300);

    // A model that was replaced is read again.
    assert_eq!(count(ctx, "SELECT cast(array_length(wae_encode(image, 'n')) AS BIGINT) FROM t LIMIT 1").await, 3);
    query(ctx, &train("n", ", latent_dim => 4, overwrite => true")).await;
    assert_eq!(count(ctx, "SELECT cast(array_length(wae_encode(image, 'n')) AS BIGINT) FROM t LIMIT 1").await, 4);

    // A training that stops leaves a checkpoint, which is renamed, gone on from, and dropped like a model.
    let stopped = |name: &str, options: &str| train(name, options).replace("epochs => 2", "epochs => 5");
    query(ctx, &(stopped("s", ", checkpoint_every => 1") + " LIMIT 1")).await;
    assert_eq!(count(ctx, "SELECT count(*) FROM wae_models()").await, 2);
    let left = failure(ctx, &stopped("s", "")).await;
    assert!(left.contains(&format!("left a checkpoint ({dir}/.s.checkpoint), expected resume => true")), "{left}");
    assert!(text(ctx, "SELECT * FROM wae_rename('s', 'u')").await.contains("| s     | u  | checkpoint |"));
    let other = failure(ctx, &stopped("u", ", seed => 4, resume => true")).await;
    assert!(other.contains("is of another training: seed was 0, is 4"), "{other}");
    query(ctx, &stopped("u", ", resume => true")).await;
    assert_eq!(count(ctx, "SELECT count(*) FROM wae_history('u')").await, 5);
    assert!(text(ctx, "SELECT * FROM wae_drop('u')").await.contains("| u     | model   |"));
    assert_eq!(count(ctx, "SELECT count(*) FROM wae_models()").await, 2);
}

// On a runtime of one thread, which planning blocks while it waits for the store.
#[tokio::test]
async fn models_live_in_memory() {
    let store = Arc::new(InMemory::new());
    let dir = "memory:///some/models";
    let ctx = context("memory://", Arc::clone(&store) as _, dir).await;
    use_models(&ctx, dir).await;
    assert!(store.head(&"some/models/m.safetensors".into()).await.is_ok());

    // What is no model is left out of the list, and an error names it.
    store.put(&"some/models/broken.safetensors".into(), "no model".into()).await.unwrap();
    assert_eq!(count(&ctx, "SELECT count(*) FROM wae_models()").await, 2);
    let broken = failure(&ctx, "SELECT wae_encode(image, 'broken') FROM t").await;
    assert!(broken.contains(&format!("model 'broken': {dir}/broken.safetensors: ")), "{broken}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_of_one_url_do_not_meet() {
    let mut contexts = Vec::new();
    for latent_dim in [2, 5] {
        let ctx = context("memory://", Arc::new(InMemory::new()), "memory:///models").await;
        query(&ctx, &train("m", &format!(", latent_dim => {latent_dim}"))).await;
        contexts.push(ctx);
    }
    for (ctx, latent_dim) in contexts.iter().zip([2, 5]) {
        let length = "SELECT cast(array_length(wae_encode(image, 'm')) AS BIGINT) FROM t LIMIT 1";
        assert_eq!(count(ctx, length).await, latent_dim);
    }
}

#[tokio::test]
async fn models_live_behind_http() {
    let (server, address) = Server::start();
    let root = format!("http://{address}");
    let dir = format!("http://{address}/wae/models");
    let ctx = context(&root, Arc::new(HttpStore(address)), &dir).await;
    use_models(&ctx, &dir).await;
    assert_eq!(server.paths(), ["/wae/models/m.safetensors", "/wae/models/n.safetensors"]);

    // Another session finds what this one wrote; a model that is in memory is not fetched again.
    let other = context(&root, Arc::new(HttpStore(address)), &dir).await;
    let costs = "SELECT avg(wae_reconstruction_cost(image, 'm')) FROM t";
    assert_eq!(text(&ctx, costs).await, text(&other, costs).await);
    let before = server.requests();
    query(&other, costs).await;
    println!("a query of a model in memory makes {} requests for its version", server.requests() - before);

    query(&other, "SET wae.max_model_bytes = 1000").await;
    let large = failure(&other, "SELECT wae_encode(image, 'n') FROM t").await;
    assert!(large.contains(&format!("{dir}/n.safetensors: it has ")), "{large}");
    assert!(large.contains("bytes, expected at most 1000 (wae.max_model_bytes)"), "{large}");

    // Errors name the place and what failed.
    server.fail(503);
    let down = failure(&ctx, "SELECT wae_encode(image, 'm') FROM t").await;
    assert!(down.contains(&format!("wae_encode: model 'm': {dir}/m.safetensors: ")), "{down}");
    assert!(down.contains("status 503"), "{down}");
    let down = failure(&ctx, "SELECT * FROM wae_models()").await;
    assert!(down.contains(&format!("wae_models: cannot list '{dir}' (wae.model_dir): ")), "{down}");
    let down = failure(&ctx, &train("p", "")).await;
    assert!(down.contains(&format!("wae_train: model 'p': {dir}/p.safetensors: ")), "{down}");
}

#[tokio::test]
async fn a_store_that_is_not_registered_says_how() {
    let ctx = datafusion_wae::session_context().unwrap();
    set_model_dir(&ctx, "s3://bucket/models").await;
    for sql in ["SELECT wae_encode(x'00', 'm')", "SELECT * FROM wae_models()", "SELECT * FROM wae_history('m')"] {
        let error = failure(&ctx, sql).await;
        assert!(error.contains("no object store is registered for 's3://bucket'"), "{error}");
        assert!(error.contains("SessionContext::register_object_store(\"s3://bucket\", store)"), "{error}");
    }
}

/// Options that came as text, as a cluster sends them, have no stores of their own.
#[tokio::test]
async fn options_without_stores_take_the_processs() {
    let store = Arc::new(InMemory::new());
    let ctx = context("memory://", store, "memory:///sent").await;
    query(&ctx, &train("m", "")).await;
    let mut sent = WaeOptions::default();
    sent.set("wae.model_dir", "memory:///sent").unwrap();
    ctx.state_ref().write().config_mut().options_mut().extensions.insert(sent);
    let count_models = "SELECT count(*) FROM wae_models()";
    let none = failure(&ctx, count_models).await;
    assert!(none.contains("wae.model_dir is 'memory:///sent', but these options hold no object stores"), "{none}");
    datafusion_wae::set_default_object_stores(Arc::clone(&ctx.runtime_env().object_store_registry));
    assert_eq!(count(&ctx, count_models).await, 1);
}
