//! The guarantees of p-values on the fixture, by the study `benches/false_alarms`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::PathBuf;

use false_alarms::{Options, run, simulated};

#[path = "../benches/false_alarms/main.rs"]
#[allow(dead_code, reason = "the study's main")]
mod false_alarms;

/// False alarms of one calibration lie around α: within three deviations of a rate over rows that are drawn anew, with
/// a threshold that is drawn too.
#[tokio::test(flavor = "multi_thread")]
async fn rates_are_what_p_values_promise() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        data: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/fashion")),
        splits: 1,
        unseen: 900,
        epochs: 4,
        models: dir.path().to_owned(),
        features: false,
        normal: "label IN (0, 1, 2, 3, 4, 6)".to_owned(),
    };
    let measured = run(&options).await.unwrap();
    assert_eq!(measured.len(), 3);
    for of_score in &measured {
        let name = of_score.score;
        let splits = &of_score.splits;
        for split in splits {
            assert_eq!((split.calibration_rows, split.tested / 10), (1200, 60), "{name}");
            for (alpha, alarms) in [0.01, 0.05, 0.1].into_iter().zip(split.false_alarms) {
                let calibration_rows = split.calibration_rows as f64;
                let tested = split.tested as f64;
                let deviation = (alpha * (1.0 - alpha) * (1.0 / calibration_rows + 1.0 / tested)).sqrt();
                assert!(alarms <= alpha + 3.0 * deviation, "{name}: {alarms} false alarms at {alpha}");
            }
        }
        // The mean share of false discoveries over lists, here one.
        let mean = splits.iter().map(|s| s.false_discoveries).sum::<f64>() / splits.len() as f64;
        let listed = splits.iter().map(|s| s.discoveries).sum::<i64>() as f64;
        assert!(
            mean <= 0.1 + 3.0 * (0.1 * 0.9 / listed.max(1.0)).sqrt(),
            "{name}: {mean} false discoveries of {listed}"
        );
    }
    // Shoes and bags are found by the anomaly score, two fifths of these 32 rows in the list of false discoveries at most a
    // tenth, or the rates above say nothing.
    let of_anomaly = measured.iter().find(|m| m.score == "anomaly_score").unwrap();
    assert!(of_anomaly.splits[0].power > 0.4, "{}", of_anomaly.splits[0].power);
    // An image has a region exactly where it is an outlier.
    assert_eq!(of_anomaly.splits[0].false_places, Some(of_anomaly.splits[0].false_alarms));
}

/// Of calibration draws, a share of at most 1 − confidence has a rate of false alarms above α, within three standard
/// errors; without a confidence nearly half have, and the rate is what is promised on average.
#[test]
fn confidence_holds_for_the_draw_at_hand() {
    for simulated in simulated::all().unwrap() {
        let error = |share: f64| (share * (1.0 - share) / simulated::DRAWS as f64).sqrt();
        let confident = simulated.confident.above;
        assert!(confident <= 0.05 + 3.0 * error(0.05), "{simulated:?}");
        assert!(simulated.on_average.above > 0.25, "{simulated:?}");
        assert!(
            (simulated.on_average.mean - simulated.promised).abs() <= 3.0 * simulated.on_average.error,
            "{simulated:?}"
        );
        assert!(simulated.confident.mean > 0.25 * simulated.alpha, "no rate to speak of: {simulated:?}");
    }
}
