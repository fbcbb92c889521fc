//! `wae.confidence` on simulated scores: uniform in [−1, 1], so that the rate of false alarms of a threshold t is
//! (1 − t)/2.

use std::fmt::Write;

use wae_core::calibrate::{Calibration, Guarantee, Score, Threshold};
use wae_core::config::{Prior, PriorKind};
use wae_core::objective::sample;

use super::{Result, mean_and_error};

/// Calibration draws.
pub const DRAWS: usize = 1000;
/// The confidence.
const CONFIDENCE: f64 = 0.95;
/// Rates of false alarms, with the rows that calibrate.
const CASES: [(f64, usize); 6] = [(0.01, 299), (0.01, 1000), (0.05, 100), (0.05, 400), (0.1, 400), (0.1, 2000)];

/// Rates of false alarms over calibration draws.
#[derive(Debug)]
pub struct Rates {
    /// The share of draws whose rate is above α.
    pub above: f64,
    /// The mean rate.
    pub mean: f64,
    /// The standard error of the mean.
    pub error: f64,
}

/// The rates of one α and one number of rows.
#[derive(Debug)]
pub struct Simulated {
    /// The rate of false alarms that is asked for.
    pub alpha: f64,
    /// Rows that calibrate.
    pub rows: usize,
    /// The rate on average over draws that is promised without a confidence, ⌊α(n + 1)⌋/(n + 1).
    pub promised: f64,
    /// Without a confidence.
    pub on_average: Rates,
    /// With a confidence of 0.95.
    pub confident: Rates,
}

/// The rates of all cases.
pub fn all() -> Result<Vec<Simulated>> {
    CASES.into_iter().enumerate().map(|(i, (alpha, rows))| simulate(alpha, rows, i as u64)).collect()
}

fn simulate(alpha: f64, rows: usize, seed: u64) -> Result<Simulated> {
    let prior = Prior { kind: PriorKind::Uniform, scale: 1.0 };
    let scores = sample(prior, DRAWS * rows, 1, seed);
    let guarantees = [Guarantee::try_new(alpha, None)?, Guarantee::try_new(alpha, Some(CONFIDENCE))?];
    let mut rates = [Vec::new(), Vec::new()];
    for scores in scores.chunks_exact(rows) {
        let calibration = Calibration::try_new(scores.to_vec())?;
        let held_out = calibration.scores(Score::Cost).ok_or("a calibration has costs")?;
        for (rates, guarantee) in rates.iter_mut().zip(guarantees) {
            let threshold = held_out.threshold(guarantee).map(Threshold::value);
            rates.push(threshold.map_or(0.0, |threshold| (1.0 - f64::from(threshold)) / 2.0));
        }
    }
    let [on_average, confident] = rates.map(|rates| {
        let (mean, error) = mean_and_error(rates.iter().copied());
        let above = rates.iter().filter(|rate| **rate > alpha).count() as f64 / DRAWS as f64;
        Rates { above, mean, error }
    });
    let promised = guarantees[0].ranks(rows) as f64 / (rows + 1) as f64;
    Ok(Simulated { alpha, rows, promised, on_average, confident })
}

/// The rates as a table.
pub fn markdown() -> Result<String> {
    let mut text = format!(
        "Simulated scores, {DRAWS} calibration draws: the share of draws whose rate is above α, and the mean rate.\n\n\
         | α | rows that calibrate | above α | mean rate | promised | above α at confidence {CONFIDENCE} | mean rate |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for Simulated { alpha, rows, promised, on_average, confident } in all()? {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {alpha} | {rows} | {:.3} | {:.4} | {promised:.4} | {:.3} | {:.4} |",
            on_average.above, on_average.mean, confident.above, confident.mean
        );
    }
    Ok(text)
}
