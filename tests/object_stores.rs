//! Models and pretrained networks in an object store: one in memory, and one over HTTP on the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[path = "support/http_store.rs"]
mod http_store;
#[path = "support/replacing_store.rs"]
mod replacing_store;
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
use replacing_store::ReplacingStore;
use session::{ROOT, TRAIN, failure, query, set_model_dir, text};
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

/// Puts the files of the pretrained networks of the fixtures under a prefix.
async fn put_weights(store: &dyn ObjectStore, prefix: &str) {
    for network in ["dinov2-transformers", "resnet-torchvision", "vit-timm"] {
        for file in std::fs::read_dir(format!("{ROOT}/fixtures/backbones/{network}")).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            store.put(&format!("{prefix}/{network}/{name}").as_str().into(), bytes.into()).await.unwrap();
        }
    }
}

/// A pretrained network in shards, and one in a file, of a store are those of the folder that they were copied from.
async fn use_weights(ctx: &SessionContext, dir: &str) {
    const FILE: &str = "resnet-torchvision/resnet50-0676ba61.safetensors";
    let features = |network: &str, file: &str| {
        format!(
            "SELECT image_features(image, '{network}', 'cls') AS a, image_features(image, '{file}', 'pooled', 35) AS b FROM t
             WHERE image_features(image, '{network}', 'cls')[1] > -100 LIMIT 20"
        )
    };
    let below = features("dinov2-transformers", FILE);
    query(ctx, &format!("SET wae.weights_dir = '{ROOT}/fixtures/backbones'")).await;
    let expected = text(ctx, &below).await;
    // By URLs of their own, beside a local folder; then below a URL.
    let own = features(&format!("{dir}/dinov2-transformers"), &format!("{dir}/{FILE}"));
    assert_eq!(text(ctx, &own).await, expected);
    query(ctx, &format!("SET wae.weights_dir = '{dir}'")).await;
    assert_eq!(text(ctx, &below).await, expected);
    let plan = text(ctx, &format!("EXPLAIN {below}")).await;
    assert!(plan.contains("dinov2-transformers@sha256:d747742db6db3ad8d5ef0c08dba5c5754f1485bd"), "{plan}");

    for (weights, message) in [
        ("absent", format!("weights '{dir}/absent': there are no files, expected model.safetensors")),
        ("../nets", "weights must be a path below wae.weights_dir, without '..', got '../nets'".to_owned()),
        ("file:///etc", "weights must be a path below wae.weights_dir, without '..', got 'file:///etc'".to_owned()),
        (
            "s3://bucket/net",
            "no object store is registered for 's3://bucket' (weights is 's3://bucket/net')".to_owned(),
        ),
        (
            "vit-timm@sha256:00",
            format!(
                "expected weights '{dir}/vit-timm' of sha256 00, there are others of this name, of sha256 b3678aa8"
            ),
        ),
    ] {
        let error = failure(ctx, &format!("SELECT image_features(image, '{weights}') FROM t")).await;
        assert!(error.contains(&format!("image_features: {message}")), "{error}");
    }
}

#[tokio::test]
async fn weights_live_in_memory() {
    let store = Arc::new(InMemory::new());
    let ctx = context("memory://", Arc::clone(&store) as _, "memory:///models").await;
    put_weights(&store, "some/nets").await;
    use_weights(&ctx, "memory:///some/nets").await;

    // Another version is read; what is no safetensors is refused with what converts it.
    let cls = "SELECT image_features(image, 'vit-timm', 'cls')[1] FROM t LIMIT 1";
    let before = text(&ctx, cls).await;
    let file = "vit-timm/config.json";
    let config = std::fs::read_to_string(format!("{ROOT}/fixtures/backbones/{file}")).unwrap();
    let other = config.replace("0.25", "0.35");
    store.put(&format!("some/nets/{file}").as_str().into(), other.into()).await.unwrap();
    assert_ne!(text(&ctx, cls).await, before);
    store.put(&"some/nets/net.pth".into(), "x".into()).await.unwrap();
    let refused = failure(&ctx, "SELECT image_features(image, 'net.pth') FROM t").await;
    assert!(refused.contains("'net.pth' is PyTorch's pickle, which can run code and is not read"), "{refused}");
    store.put(&"part/model-00001-of-00002.safetensors".into(), "x".into()).await.unwrap();
    let part = failure(&ctx, "SELECT image_features(image, 'memory:///part') FROM t").await;
    assert!(
        part.contains("is a part of weights in several files") && part.contains("safetensors.index.json"),
        "{part}"
    );
}

/// The sizes of a listing bound what is read.
#[tokio::test]
async fn weights_that_grow_while_they_are_read_are_refused() {
    let store = Arc::new(ReplacingStore::default());
    put_weights(store.as_ref(), "nets").await;
    let ctx = context("memory://", Arc::clone(&store) as _, "memory:///models").await;
    query(&ctx, "SET wae.weights_dir = 'memory:///nets'").await;
    store.replace_at(1, "nets/vit-timm/model.safetensors", &[0; 100_000]);
    let grown = failure(&ctx, "SELECT image_features(image, 'vit-timm') FROM t").await;
    assert!(store.has_replaced());
    let place = "memory:///nets/vit-timm/model.safetensors: it had 94448 bytes when it was listed, now 100000";
    assert!(grown.contains(place), "{grown}");
}

#[tokio::test]
async fn weights_live_behind_http() {
    let (server, address) = Server::start();
    let root = format!("http://{address}");
    let dir = format!("{root}/nets");
    let store = Arc::new(HttpStore(address));
    put_weights(store.as_ref(), "nets").await;
    let ctx = context(&root, store, &format!("{root}/models")).await;
    use_weights(&ctx, &dir).await;

    // Planning looks for the version; rows are computed by the network in memory.
    query(&ctx, "SET wae.batch_size = 10").await;
    let before = server.requests();
    query(&ctx, "SELECT count(image_features(image, 'vit-timm', 'cls')) FROM t").await;
    let requests = server.requests() - before;
    println!("a query of 30 batches by a network in memory makes {requests} requests");
    assert!(requests < 15, "{requests}");

    server.fail(503);
    let down = failure(&ctx, "SELECT image_features(image, 'vit-timm') FROM t").await;
    assert!(down.contains(&format!("image_features: weights '{dir}/vit-timm': ")), "{down}");
    assert!(down.contains("status 503"), "{down}");
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
