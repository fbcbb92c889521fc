//! Table (b): one class against the rest, AUROC of the test rows.
//!
//! A model or baseline sees the training rows of one class; all test rows are scored, and those of other classes are
//! the positives. No test row is seen in training, and nothing is chosen by one.

use std::time::Instant;

use serde_json::{Value, json};

use super::baselines::{Pixels, nearest_distances, pca_costs};
use super::{Bench, OBJECTIVE_NAMES, ONE_CLASS, Result, markdown};

/// Components of the PCA, as many as the models' codes have values.
const COMPONENTS: usize = 32;

/// The AUROC of each score in the results file, and the score's function; the first is that of the table.
const SCORES: [(&str, &str); 3] = [
    ("auroc", "wae_anomaly_score"),
    ("auroc_of_cost", "wae_reconstruction_cost"),
    ("auroc_of_latent_distance", "wae_latent_distance"),
];

/// Computes what is missing, and lays the table out.
pub async fn table(bench: &mut Bench) -> Result<String> {
    let mut text = format!(
        "### (b) One class against the rest\n\nAUROC of the test set; the models' by `wae_anomaly_score`, the baselines' by \
         squared error and squared distance; {ONE_CLASS}, seeds 0 to {}.\n\n",
        bench.options.seeds - 1
    );
    for set in bench.options.sets.clone() {
        let data = bench.open(&set).await?;
        // Only once a baseline needs them.
        let mut pixels = None;
        for class in bench.options.classes.clone() {
            for method in bench.options.methods.clone() {
                let objective = OBJECTIVE_NAMES.contains(&method.as_str());
                for seed in seeds(bench, &method) {
                    let identity = identity(&data, class, &method, seed);
                    if bench.results.get(&identity).is_some() {
                        continue;
                    }
                    let started = Instant::now();
                    let values = if objective {
                        of_model(bench, &set, class, &method, seed).await?
                    } else {
                        if pixels.is_none() {
                            pixels = Some(Pixels::read(bench, &set).await?);
                        }
                        vec![("auroc", of_baseline(bench, pixels.as_ref().ok_or("no pixels")?, class, &method).await?)]
                    };
                    bench.results.add(identity, &values, started)?;
                }
            }
        }
        text += &lay_out(bench, &set, &data);
    }
    Ok(text)
}

/// A baseline has no seed: it is one, 0.
fn seeds(bench: &Bench, method: &str) -> std::ops::Range<u64> {
    0..if OBJECTIVE_NAMES.contains(&method) { bench.options.seeds } else { 1 }
}

fn training(method: &str, seed: u64) -> String {
    format!("objective => '{method}', {ONE_CLASS}, seed => {seed}")
}

fn identity(data: &Value, class: i64, method: &str, seed: u64) -> Value {
    let options = match method {
        "pca" => format!("components => {COMPONENTS}"),
        "nearest" => "neighbours => 1".to_owned(),
        _ => training(method, seed),
    };
    json!({"table": "b", "data": data, "class": class, "method": method, "seed": seed, "options": options})
}

/// AUROC of each of the model's scores.
async fn of_model(bench: &Bench, set: &str, class: i64, method: &str, seed: u64) -> Result<Vec<(&'static str, f64)>> {
    let model = format!("b-{set}-{class}-{method}-{seed}");
    let source = format!("SELECT image FROM {set}_train WHERE label = {class}");
    bench.train(&source, &model, &training(method, seed)).await?;
    let areas = SCORES.map(|(_, function)| format!("auroc({function}(image, '{model}'), label <> {class})")).join(", ");
    let sql = format!("SELECT {areas} FROM {set}_test");
    let values = bench.numbers(&sql).await?;
    Ok(SCORES.iter().map(|(name, _)| *name).zip(values).collect())
}

async fn of_baseline(bench: &Bench, pixels: &Pixels, class: i64, method: &str) -> Result<f64> {
    let train = pixels.of_class(class);
    let scores = match method {
        "pca" => pca_costs(&train, &pixels.test, COMPONENTS)?,
        "nearest" => nearest_distances(&train, &pixels.test)?,
        other => return Err(format!("unknown method '{other}', expected mmd, gan, vae, ae, pca or nearest").into()),
    };
    bench.ctx.deregister_table("scores")?;
    bench.ctx.register_batch("scores", pixels.scored(scores)?)?;
    Ok(bench.numbers(&format!("SELECT auroc(score, label <> {class}) FROM scores")).await?[0])
}

fn lay_out(bench: &Bench, set: &str, data: &Value) -> String {
    let methods = &bench.options.methods;
    let title = |method: &String| match method.as_str() {
        "pca" => format!("PCA-{COMPONENTS}"),
        "nearest" => "1-NN on pixels".to_owned(),
        method => method.to_owned(),
    };
    let columns: Vec<String> = std::iter::once("class".to_owned()).chain(methods.iter().map(title)).collect();
    let mut text = format!("{set}, {} test images:\n\n{}", data["test_rows"], markdown::head(&columns));
    let value = |class: i64, method: &str, seed: u64, name: &str| {
        let values = bench.results.get(&identity(data, class, method, seed))?;
        values.get(name).and_then(Value::as_f64)
    };
    for &class in &bench.options.classes {
        let cell = |method: &String| -> String {
            let values: Vec<f64> =
                seeds(bench, method).filter_map(|seed| value(class, method, seed, SCORES[0].0)).collect();
            markdown::mean(&values, 3)
        };
        text += &markdown::row(&[class.to_string()].into_iter().chain(methods.iter().map(cell)).collect::<Vec<_>>());
    }
    // Of each seed the mean over the classes, so that the deviation is that of the mean.
    let mean = |method: &String, name: &str| -> String {
        let of_seed = |seed: u64| -> Option<f64> {
            let values: Option<Vec<f64>> =
                bench.options.classes.iter().map(|class| value(*class, method, seed, name)).collect();
            values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
        };
        markdown::mean(&seeds(bench, method).filter_map(of_seed).collect::<Vec<_>>(), 3)
    };
    for (row, (name, function)) in SCORES.iter().enumerate() {
        let title = if row == 0 { "mean".to_owned() } else { format!("mean, by {function}") };
        text +=
            &markdown::row(&std::iter::once(title).chain(methods.iter().map(|m| mean(m, name))).collect::<Vec<_>>());
    }
    text + "\n"
}
