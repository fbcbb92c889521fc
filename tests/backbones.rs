//! Models with a pretrained network: what plans show, images counted, weights that change, models that are spoiled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::fs;
use std::path::Path;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Float32Type;
use datafusion::prelude::SessionContext;
use datafusion_wae::ReportOptions;
use session::{ROOT, context, failure, query, text, weights};
use tempfile::TempDir;

const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/emoji/train.parquet");
const OTHERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/emoji/test.parquet");

/// A folder with the network `net`, a copy of a fixture.
fn network(fixture: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    copy(fixture, &dir.path().join("net"));
    dir
}

fn copy(fixture: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(Path::new(ROOT).join("fixtures/backbones").join(fixture)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

async fn set_weights(ctx: &SessionContext, dir: &Path) {
    query(ctx, &format!("SET wae.weights_dir = '{}'", dir.display())).await;
}

fn train(model: &str, options: &str) -> String {
    format!(
        "SELECT * FROM wae_train((SELECT image FROM '{IMAGES}'), model => '{model}', backbone => 'net', size => 48,
             epochs => 2, batch_size => 20, holdout => 0.3, {options})"
    )
}

async fn scores(ctx: &SessionContext, model: &str) -> Vec<f32> {
    let rows = query(ctx, &format!("SELECT wae_anomaly_score(image, '{model}') FROM '{OTHERS}'")).await;
    rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Float32Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn plans_show_the_network_and_count_its_images() {
    let models = TempDir::new().unwrap();
    let networks = network("resnet-timm");
    let ctx = context(models.path()).await;
    set_weights(&ctx, networks.path()).await;
    let plan = text(&ctx, &format!("EXPLAIN {}", train("m", "crop => 60"))).await;
    let shown = "WaeTrainExec: model=m, epochs=2, seed=0, backbone=net@sha256:";
    assert!(plan.contains(shown), "{plan}");
    assert!(plan.contains(", layer=layer2+layer3, centre 60 × 60, ResNet: to 48 × 48, bi"), "{plan}");
    let images = query(&ctx, &format!("SELECT image FROM '{IMAGES}'")).await;
    let images: usize = images.iter().map(|batch| batch.num_rows()).sum();
    let plan = text(&ctx, &format!("EXPLAIN ANALYZE {}", train("m", "epochs => 3").replace("epochs => 2,", ""))).await;
    assert!(plan.contains(&format!("images_seen={images}")), "{plan}");
    // Five functions, a condition and an order: each image once.
    let others = scores(&ctx, "m").await.len();
    let sql = format!(
        "EXPLAIN ANALYZE SELECT wae_encode(image, 'm'), wae_reconstruction_cost(image, 'm'), wae_p_value(image, 'm'),
             wae_anomaly_map(image, 'm'), wae_detect(image, 'm') FROM '{OTHERS}'
         WHERE wae_anomaly_score(image, 'm') >= 0 ORDER BY wae_latent_distance(image, 'm')"
    );
    let plan = text(&ctx, &sql).await;
    assert!(plan.contains(&format!("rows_scored={others}")), "{plan}");
    assert_eq!(plan.matches("WaePassExec").count(), 1, "{plan}");
}

#[tokio::test]
async fn weights_that_change() {
    let models = TempDir::new().unwrap();
    let networks = network("resnet-timm");
    let ctx = context(models.path()).await;
    set_weights(&ctx, networks.path()).await;
    query(&ctx, &train("held", "latent_dim => 4")).await;
    query(&ctx, &train("named", "latent_dim => 4, embed => false")).await;
    // With nothing in memory but the model that is read last, and the network that it shares.
    query(&ctx, "SET wae.cache_bytes = 0").await;
    let held = scores(&ctx, "held").await;
    assert_eq!(scores(&ctx, "named").await, held);
    // A training that is planned with some weights does not go on with others.
    let planned = ctx.sql(&train("planned", "latent_dim => 4")).await.unwrap();
    copy("resnet-transformers", &networks.path().join("net"));
    let error = planned.collect().await.unwrap_err().strip_backtrace();
    assert!(error.contains("wae_train: ") && error.contains("sha256"), "{error}");
    assert!(!models.path().join("planned.safetensors").exists());
    assert_eq!(scores(&ctx, "named").await, held, "the version that it names is in memory");
    // Another statement reads the files as they are now.
    query(&ctx, &format!("SELECT image_features(image, 'net', 'pooled', 40) FROM '{OTHERS}' LIMIT 1")).await;
    assert_eq!(scores(&ctx, "held").await, held, "its weights travel with it");
    let error = failure(&ctx, &format!("SELECT wae_anomaly_score(image, 'named') FROM '{OTHERS}'")).await;
    assert!(error.contains("model 'named': expected weights 'net' of sha256 "), "{error}");
    assert!(error.contains("there are others of this name, of sha256 "), "{error}");
    fs::remove_dir_all(networks.path().join("net")).unwrap();
    copy("resnet-timm", &networks.path().join("net"));
    assert_eq!(scores(&ctx, "named").await, held);
    fs::remove_dir_all(networks.path().join("net")).unwrap();
    scores(&ctx, "held").await;
    let error = failure(&ctx, &format!("SELECT wae_anomaly_score(image, 'named') FROM '{OTHERS}'")).await;
    assert!(error.contains("model 'named': no weights 'net' in "), "{error}");
}

#[tokio::test]
async fn a_running_query_keeps_its_weights() {
    let models = TempDir::new().unwrap();
    let networks = network("vit-timm");
    let ctx = context(models.path()).await;
    set_weights(&ctx, networks.path()).await;
    for option in ["wae.cache_bytes = 0", "wae.batch_size = 10", "datafusion.execution.target_partitions = 1"] {
        query(&ctx, &format!("SET {option}")).await;
    }
    let sql = format!("SELECT image_features(image, 'net', 'cls') FROM '{OTHERS}'");
    let expected = features(&query(&ctx, &sql).await);
    let mut stream = ctx.sql(&sql).await.unwrap().execute_stream().await.unwrap();
    let mut batches = vec![futures::StreamExt::next(&mut stream).await.unwrap().unwrap()];
    // Files are replaced, another statement reads them, and then there are none.
    let config = networks.path().join("net/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("0.25", "0.35")).unwrap();
    assert_ne!(features(&query(&ctx, &sql).await), expected);
    fs::remove_dir_all(networks.path().join("net")).unwrap();
    while let Some(batch) = futures::StreamExt::next(&mut stream).await {
        batches.push(batch.unwrap());
    }
    assert!(batches.len() > 1 && features(&batches) == expected, "{} batches", batches.len());
}

/// The values of a column of vectors.
fn features(batches: &[RecordBatch]) -> Vec<f32> {
    let lists = batches.iter().map(|batch| batch.column(0).as_fixed_size_list().values());
    lists.flat_map(|values| values.as_primitive::<Float32Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn a_training_is_the_same_twice_and_goes_on() {
    let models = TempDir::new().unwrap();
    let networks = network("dinov2-transformers");
    let ctx = context(models.path()).await;
    set_weights(&ctx, networks.path()).await;
    let options = "latent_dim => 4, checkpoint_every => 1";
    let train = |model: &str, more: &str| train(model, &format!("{options}{more}")).replace("size => 48", "size => 42");
    query(&ctx, &train("a", "")).await;
    query(&ctx, &train("b", "")).await;
    let file = |name: &str| weights(&models.path().join(format!("{name}.safetensors")));
    assert_eq!(file("a"), file("b"));
    // Stopped behind the first epoch, and gone on with.
    let mut stream = ctx.sql(&train("c", "")).await.unwrap().execute_stream().await.unwrap();
    futures::StreamExt::next(&mut stream).await.unwrap().unwrap();
    drop(stream);
    let checkpoint = models.path().join(".c.checkpoint");
    for _ in 0..600 {
        if models.path().join("c.safetensors").exists() || checkpoint.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let gone_on = train("c", ", resume => true, overwrite => true");
    for _ in 0..200 {
        match session::run(&ctx, &gone_on).await {
            Ok(_) => break,
            // The thread of the stopped training may still end.
            Err(e) => assert!(e.strip_backtrace().contains("is being trained"), "{e}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(file("a"), file("c"));
}

#[tokio::test]
async fn spoiled_models_are_refused() {
    let models = TempDir::new().unwrap();
    let networks = network("vit-timm");
    let ctx = context(models.path()).await;
    set_weights(&ctx, networks.path()).await;
    query(&ctx, &train("m", "latent_dim => 4").replace("size => 48", "size => 42")).await;
    let bytes = fs::read(models.path().join("m.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap();
    for (name, from, to, expected) in [
        ("tensor", "\"backbone.norm.weight\"", "\"backbone.morn.weight\"", "tensor 'backbone.norm.weight' is missing"),
        ("sha256", "sha256\\\":\\\"", "sha256\\\":\\\"x", "'config' is unreadable: a backbone has a sha256"),
        ("layer", "layer\\\":\\\"tokens", "layer\\\":\\\"tokinz", "there is no layer 'tokinz'"),
        ("heads", "heads\\\":3", "heads\\\":0", "a backbone has 0 heads"),
        ("outside", "embed\\\":true", "embed\\\":false", "unknown tensor 'backbone."),
    ] {
        assert!(header.contains(from), "{name}: {header}");
        let header = header.replacen(from, to, 1);
        let spoiled = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + length..]].concat();
        fs::write(models.path().join(format!("{name}.safetensors")), spoiled).unwrap();
        let error = failure(&ctx, &format!("SELECT wae_anomaly_score(image, '{name}') FROM '{OTHERS}'")).await;
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_report_shows_images_and_maps() {
    let models = TempDir::new().unwrap();
    let networks = network("resnet-timm");
    let ctx = context(models.path()).await;
    set_weights(&ctx, networks.path()).await;
    query(&ctx, &train("m", "latent_dim => 4")).await;
    let page = datafusion_wae::report(&ctx, "m", OTHERS, &ReportOptions::default()).await.unwrap();
    let page = page.as_str();
    assert!(page.contains("the image as the pretrained network sees it") && page.contains("48 × 48 × 3"), "{page}");
    assert!(page.contains("Anomaly map of image 1") && !page.contains("Reconstruction of image 1"));
}
