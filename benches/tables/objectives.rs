//! Table (a): the objectives on Fashion-MNIST, at one architecture.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Bench, FEATURES, OBJECTIVE_NAMES, OBJECTIVES, Result, SAMPLES, markdown};

const DATA: &str = "fashion";

/// The method whose row is the data itself.
const THE_DATA: &str = "data";

/// Computes what is missing, and lays the table out.
pub async fn table(bench: &mut Bench) -> Result<String> {
    let data = bench.open(DATA).await?;
    let epochs = bench.options.epochs;
    let seeds = bench.options.seeds;
    if bench.results.get(&data_identity(&data)).is_none() {
        let started = Instant::now();
        let values = of_data(bench, &data).await?;
        bench.results.add(data_identity(&data), &values, started)?;
    }
    for seed in 0..seeds {
        for method in OBJECTIVE_NAMES {
            let identity = identity(&data, method, epochs, seed);
            if !bench.options.methods.iter().any(|m| m == method) || bench.results.get(&identity).is_some() {
                continue;
            }
            let started = Instant::now();
            let values = of_model(bench, &data, method, epochs, seed).await?;
            bench.results.add(identity, &values, started)?;
        }
    }
    Ok(lay_out(bench, &data))
}

fn training(method: &str, epochs: u64, seed: u64) -> String {
    format!("objective => '{method}', {OBJECTIVES}, epochs => {epochs}, seed => {seed}")
}

fn identity(data: &Value, method: &str, epochs: u64, seed: u64) -> Value {
    json!({"table": "a", "data": data, "class": null, "method": method, "seed": seed, "epochs": epochs,
           "options": training(method, epochs, seed), "features": FEATURES, "samples": SAMPLES})
}

fn data_identity(data: &Value) -> Value {
    json!({"table": "a", "data": data, "class": null, "method": THE_DATA, "features": FEATURES, "samples": SAMPLES})
}

/// The model whose codes are the feature space; trained once, since its name tells how and on what.
async fn features(bench: &Bench, data: &Value) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    (FEATURES, data.to_string()).hash(&mut hasher);
    let name = format!("features-{:016x}", hasher.finish());
    if bench.count(&format!("SELECT count(*) FROM wae_models() WHERE name = '{name}'")).await? == 0 {
        println!("training the feature space, {name}: {FEATURES}");
        bench.train(&format!("SELECT image FROM {DATA}_train"), &name, FEATURES).await?;
    }
    Ok(name)
}

/// The Fréchet distance of a query's images to the test data.
fn frechet(images: &str, features: &str) -> String {
    format!(
        "SELECT frechet_distance(x, y) FROM (
             SELECT wae_encode(image, '{features}') AS x, NULL AS y FROM ({images})
             UNION ALL SELECT NULL, wae_encode(image, '{features}') FROM {DATA}_test)"
    )
}

/// The data's own sharpness, and the distance of as many training rows as there are samples: no sample can be nearer.
async fn of_data(bench: &Bench, data: &Value) -> Result<Vec<(&'static str, f64)>> {
    let features = features(bench, data).await?;
    let sharpness = bench.numbers(&format!("SELECT avg(image_sharpness(image)) FROM {DATA}_test")).await?;
    let train = format!("SELECT image FROM {DATA}_train LIMIT {SAMPLES}");
    let distance = bench.numbers(&frechet(&train, &features)).await?;
    Ok(vec![("sharpness", sharpness[0]), ("frechet_distance", distance[0])])
}

async fn of_model(
    bench: &Bench,
    data: &Value,
    method: &str,
    epochs: u64,
    seed: u64,
) -> Result<Vec<(&'static str, f64)>> {
    let features = features(bench, data).await?;
    let model = format!("a-{method}-{seed}");
    bench.train(&format!("SELECT image FROM {DATA}_train"), &model, &training(method, epochs, seed)).await?;
    let of_test = bench
        .numbers(&format!(
            "SELECT avg(CAST(wae_reconstruction_cost(image, '{model}') AS DOUBLE)), wae_mmd(wae_encode(image, '{model}'), '{model}'),
                    wae_mmd_p_value(wae_encode(image, '{model}'), '{model}') FROM {DATA}_test"
        ))
        .await?;
    let samples = format!("SELECT image FROM wae_sample({SAMPLES}, model => '{model}', seed => 1)");
    let sharpness = bench.numbers(&format!("SELECT avg(image_sharpness(image)) FROM ({samples})")).await?;
    let distance = bench.numbers(&frechet(&samples, &features)).await?;
    Ok(vec![
        ("cost", of_test[0]),
        ("mmd", of_test[1]),
        ("mmd_p_value", of_test[2]),
        ("sharpness", sharpness[0]),
        ("frechet_distance", distance[0]),
    ])
}

fn lay_out(bench: &Bench, data: &Value) -> String {
    let epochs = bench.options.epochs;
    let seeds = bench.options.seeds;
    let columns = [
        "objective",
        "cost of test images",
        "MMD² of their codes",
        "p-value",
        "sharpness of samples",
        "Fréchet distance",
    ];
    let mut text = format!(
        "### (a) Objectives on Fashion-MNIST\n\n{} training and {} test images, {OBJECTIVES}, {epochs} epochs, seeds 0 to {}. MMD² is \
         by each model's own kernel, which is one for all: a model that was not trained with it has the default. A \
         gaussian encoder's code is its mean. Fréchet distance of {SAMPLES} samples to the test images, in the codes of a \
         model of its own ({FEATURES}); the row `{THE_DATA}` is of as many training images.\n\n",
        data["train_rows"],
        data["test_rows"],
        seeds - 1
    );
    text += &markdown::head(&columns.map(str::to_owned));
    let names = [("cost", 2), ("mmd", 4), ("mmd_p_value", 3), ("sharpness", 4), ("frechet_distance", 2)];
    for method in OBJECTIVE_NAMES.into_iter().chain([THE_DATA]) {
        let identities: Vec<Value> = match method {
            THE_DATA => vec![data_identity(data)],
            method => (0..seeds).map(|seed| identity(data, method, epochs, seed)).collect(),
        };
        let cells: Vec<_> = identities.iter().filter_map(|identity| bench.results.get(identity)).collect();
        let numbers = names.iter().map(|(name, digits)| markdown::mean(&markdown::values(&cells, name), *digits));
        text += &markdown::row(&[method.to_owned()].into_iter().chain(numbers).collect::<Vec<_>>());
    }
    text + "\n"
}
