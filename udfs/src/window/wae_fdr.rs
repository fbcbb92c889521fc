//! `wae_fdr(p) OVER ()`: p-values adjusted for the number of rows that were tested, after Benjamini and Hochberg.
//!
//! `q_(i) = min over j ≥ i of min(1, p_(j)·m/j)`
//!
//! Where: p_(1) ≤ ... ≤ p_(m) are the p-values of the window's partition that are not NULL. Flagging q ≤ α keeps the
//! false-discovery rate, the expected share of normal rows among those flagged, at α·m₀/m or below, where m₀ is the
//! number of normal rows: if the p-values are independent, or conformal and against one set of calibration rows.
//!
//! # Source
//! Benjamini and Hochberg, Controlling the false discovery rate, JRSS B 57 (1995), procedure 1, in the adjusted form of
//! R's `p.adjust`. Conformal p-values: Bates, Candès, Lei, Romano and Sesia, arXiv 2104.08279, theorem 2.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowFunctionSimplification, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Documentation, Expr, PartitionEvaluator, ReversedUDWF, Signature, Volatility, WindowFrameBound,
    WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};
use rayon::prelude::*;

use crate::documentation::FunctionDocumentation;

const NAME: &str = "wae_fdr";

/// The level at which a list that stays empty is explained.
const LEVEL: f64 = 0.1;

/// The window function.
pub(crate) fn wae_fdr_udwf() -> WindowUDF {
    WindowUDF::from(WaeFdr {
        signature: DOCUMENTATION.signature(Volatility::Immutable, &[DataType::Float64]),
        documentation: DOCUMENTATION.page(),
        has_logged: Arc::new(AtomicBool::new(false)),
    })
}

#[derive(Debug)]
struct WaeFdr {
    signature: Signature,
    documentation: Documentation,
    /// Whether a partition of this statement has logged: the others then do not.
    has_logged: Arc<AtomicBool>,
}

impl PartialEq for WaeFdr {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for WaeFdr {}

impl Hash for WaeFdr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

impl WindowUDFImpl for WaeFdr {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerce = |t: &DataType| if t.is_numeric() || t.is_null() { DataType::Float64 } else { t.clone() };
        Ok(types.iter().map(coerce).collect())
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        DOCUMENTATION.check_arity(1, args.input_fields().len())?;
        match args.input_fields()[0].data_type() {
            DataType::Float64 => Ok(Arc::new(Field::new(args.name(), DataType::Float64, true))),
            other => plan_err!("{NAME}: p must be a number, got {other}"),
        }
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Adjustment { has_logged: Arc::clone(&self.has_logged) }))
    }

    /// DataFusion evaluates a function of the whole partition without looking at a frame or DISTINCT: what would change
    /// the rows that are counted, and does not, is refused here, where it can be seen.
    fn simplify(&self) -> Option<WindowFunctionSimplification> {
        Some(Box::new(|mut window: WindowFunction, _| {
            check_window(&window.params)?;
            // Each statement logs for itself.
            window.fun = WindowFunctionDefinition::WindowUDF(Arc::new(wae_fdr_udwf()));
            Ok(Expr::WindowFunction(Box::new(window)))
        }))
    }

    /// A row's value does not depend on the order of rows.
    fn reverse_expr(&self) -> ReversedUDWF {
        ReversedUDWF::Identical
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// Refuses what would adjust for a part of the partition only. The frame that ORDER BY implies is let pass: whoever
/// orders the window means no frame.
fn check_window(window: &WindowFunctionParams) -> Result<()> {
    // FILTER is refused by DataFusion itself.
    if window.distinct {
        return plan_err!("{NAME}: DISTINCT is not supported, expected a subquery with SELECT DISTINCT");
    }
    let frame = &window.window_frame;
    let implied = !window.order_by.is_empty() && matches!(frame.end_bound, WindowFrameBound::CurrentRow);
    let to_the_end = matches!(&frame.end_bound, WindowFrameBound::Following(rows) if rows.is_null());
    if !frame.start_bound.is_unbounded() || !(to_the_end || implied) {
        return plan_err!(
            "{NAME}: p-values are adjusted over the whole partition, expected no frame in OVER, got {frame}"
        );
    }
    Ok(())
}

/// The evaluator of one partition, which sees all of its rows at once.
#[derive(Debug)]
struct Adjustment {
    has_logged: Arc<AtomicBool>,
}

impl PartitionEvaluator for Adjustment {
    fn evaluate_all(&mut self, values: &[ArrayRef], _: usize) -> Result<ArrayRef> {
        let Some(p) = values.first().and_then(|values| values.as_primitive_opt::<Float64Type>()) else {
            return exec_err!("{NAME}: p must be a column of Float64");
        };
        let adjusted = adjusted(p)?;
        if let Some(reason) = why_none(p, &adjusted)
            && !self.has_logged.swap(true, Ordering::Relaxed)
        {
            log::warn!("{NAME}: {reason}");
        }
        Ok(Arc::new(adjusted))
    }
}

/// The adjusted p-value of each row.
fn adjusted(p: &Float64Array) -> Result<Float64Array> {
    let mut rows: Vec<usize> = (0..p.len()).filter(|row| p.is_valid(*row)).collect();
    if let Some(row) = rows.iter().find(|row| !(0.0..=1.0).contains(&p.value(**row))) {
        return exec_err!("{NAME}: row {row} of the partition: p must be between 0 and 1, got {}", p.value(*row));
    }
    // Equal p-values are adjusted alike, in whichever order they come.
    rows.par_sort_unstable_by(|a, b| p.value(*b).total_cmp(&p.value(*a)));
    let tested = rows.len();
    let mut least = 1.0_f64;
    let mut adjusted = vec![0.0; p.len()];
    for (above, row) in rows.into_iter().enumerate() {
        // m/j first, which is exactly 1 for the largest: p·m/j could round to less than p.
        let ratio = tested as f64 / (tested - above) as f64;
        least = least.min(p.value(row) * ratio);
        adjusted[row] = least;
    }
    Ok(Float64Array::new(adjusted.into(), p.nulls().cloned()))
}

/// The reason why no row can be significant at [`LEVEL`], with the held-out rows that it would take; `None` where one is,
/// none was tested, or more held-out rows need not help.
fn why_none(p: &Float64Array, adjusted: &Float64Array) -> Option<String> {
    let least = |values: &Float64Array| values.iter().flatten().reduce(f64::min);
    let smallest = least(adjusted).filter(|q| *q > LEVEL).and_then(|_| least(p))?;
    // p-values are ranks over n + 1, of which 1 divides all. A smallest rank above 1 does not fall with more held-out rows.
    let is_whole = |ranks: f64| (ranks - ranks.round()).abs() <= 1e-9 * ranks;
    if !p.iter().flatten().chain([1.0]).all(|p| is_whole(p / smallest)) {
        return None;
    }
    let k = p.iter().flatten().filter(|p| *p <= smallest).count();
    let m = p.len() - p.null_count();
    let needed = (m as f64 / (LEVEL * k as f64)).ceil() - 1.0;
    Some(format!(
        "none of the partition's {m} rows has an adjusted p-value of at most {LEVEL}: {k} of them score above every \
         held-out row (p = {smallest}). For {k} rows to be significant, a model needs {needed} held-out rows"
    ))
}

const DOCUMENTATION: FunctionDocumentation = FunctionDocumentation {
    name: NAME,
    syntax: "wae_fdr(p) OVER ([PARTITION BY ...])",
    description: "P-values adjusted for the number of rows tested, after Benjamini and Hochberg; a Float64. Of the rows with \
         `wae_fdr(p) OVER () <= 0.1`, at most a tenth is expected to be normal, however many rows were tested. Adjusted over \
         the whole partition of the window, whatever the order of its rows: ORDER BY in OVER changes nothing, and a frame, \
         FILTER and DISTINCT are refused. NULL stays NULL and counts as not tested. With n calibration rows and m rows \
         tested, a p-value is at least 1/(n + 1), so that a level α flags none or at least m/(α(n + 1)) rows. Where no row can \
         be significant at 0.1, the log says how many held-out rows that would take.",
    arguments: &[("p", "The p-value, a number between 0 and 1; NaN is an error.")],
    example: "SELECT path FROM (SELECT path, wae_fdr(wae_p_value(image, 'fashion')) OVER () AS q FROM 'images.parquet') WHERE q <= 0.1;",
    related: &["wae_p_value"],
};

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use wae_core::calibrate::{Calibration, Score};

    use super::*;

    fn of(p: &[Option<f64>]) -> Vec<Option<f64>> {
        adjusted(&Float64Array::from(p.to_vec())).unwrap().iter().collect()
    }

    /// Numbers whose products with the ratio are exact, or the nearest to a third.
    #[rstest]
    #[case::alone(&[0.25], &[0.25])]
    #[case::by_rank(&[0.125, 0.25, 0.75, 1.0], &[0.5, 0.5, 1.0, 1.0])]
    #[case::the_minimum_runs_from_the_largest(&[0.25, 0.25, 0.25, 0.5], &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.5])]
    #[case::no_more_than_one(&[0.75, 1.0], &[1.0, 1.0])]
    #[case::zero(&[0.0, 0.5], &[0.0, 0.5])]
    #[case::minus_zero(&[-0.0, 0.0], &[0.0, 0.0])]
    fn by_hand(#[case] p: &[f64], #[case] expected: &[f64]) {
        let (p, expected): (Vec<_>, Vec<_>) =
            (p.iter().copied().map(Some).collect(), expected.iter().copied().map(Some).collect());
        assert_eq!(of(&p), expected);
        // Backwards, the same.
        let reversed: Vec<_> = p.iter().rev().copied().collect();
        assert_eq!(of(&reversed), expected.iter().rev().copied().collect::<Vec<_>>());
    }

    /// The example of Benjamini and Hochberg's section 3.2: four of 15 hypotheses are rejected at 0.05.
    #[test]
    fn the_papers_example() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let q = of(&p.map(Some));
        assert_eq!(q.iter().flatten().filter(|q| **q <= 0.05).count(), 4);
        assert!((q[3].unwrap() - 0.0095 * 15.0 / 4.0).abs() < 1e-15);
    }

    /// Of 100 rows, one at 1/201 is adjusted to 0.498: to be significant it has to be 1/1000. Five need a fifth of that.
    #[rstest]
    #[case::one(
        1,
        201.0,
        Some("1 of them score above every held-out row (p = 0.004975124378109453). For 1 rows to be significant"),
        Some("needs 999 held")
    )]
    #[case::five(
        5,
        101.0,
        Some("none of the partition's 100 rows has an adjusted p-value of at most 0.1: 5 of them score above every"),
        Some("needs 199 held")
    )]
    #[case::enough(5, 200.0, None, None)]
    #[case::rounded_up(3, 50.0, Some("For 3 rows to be"), Some("needs 333 held"))]
    fn a_list_that_stays_empty_is_explained(
        #[case] strange: usize,
        #[case] ranks: f64,
        #[case] counts: Option<&str>,
        #[case] needed: Option<&str>,
    ) {
        let p = (0..102).map(|row| match row {
            7 | 60 => None,
            row if row < strange => Some(1.0 / ranks),
            _ => Some((0.9 * ranks).round() / ranks),
        });
        let p = Float64Array::from_iter(p);
        let reason = why_none(&p, &adjusted(&p).unwrap());
        assert_eq!(reason.is_some(), counts.is_some(), "{reason:?}");
        for part in counts.into_iter().chain(needed) {
            assert!(reason.as_ref().unwrap().contains(part), "{reason:?}");
        }
    }

    /// Smallest ranks above 1: they need not stay the same among more held-out rows.
    #[rstest]
    #[case::no_divisor(&[2.0, 3.0, 8.0], 10.0)]
    #[case::not_of_one(&[2.0, 4.0, 8.0], 421.0)]
    #[case::many_held_out_rows(&[1000.0, 2001.0, 500_000.0], 1_000_000.0)]
    fn more_held_out_rows_need_not_help(#[case] ranks: &[f64], #[case] of: f64) {
        // A hundred normal rows beside them, whose ranks are even.
        let normal = (0..100).map(|row| 2.0 * ((0.25 + f64::from(row) / 500.0) * of).round() / of);
        let p: Float64Array = ranks.iter().map(|rank| rank / of).chain(normal).map(Some).collect();
        let adjusted = adjusted(&p).unwrap();
        assert!(adjusted.iter().flatten().all(|q| q > LEVEL));
        assert_eq!(why_none(&p, &adjusted), None);
    }

    #[test]
    fn rows_that_are_not_tested_need_no_reason() {
        for p in [vec![], vec![None, None]] {
            let p = Float64Array::from(p);
            assert_eq!(why_none(&p, &adjusted(&p).unwrap()), None);
        }
    }

    #[test]
    fn null_is_not_tested() {
        assert_eq!(of(&[None, Some(0.25), None, Some(0.5)]), [None, Some(0.5), None, Some(0.5)]);
        assert_eq!(of(&[None, None]), [None, None]);
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn an_adjusted_p_value_is_no_less_than_its_own() {
        let p: Vec<_> = (0..1000).map(|i| Some(f64::from(i * 7919 % 1000) / 999.0)).collect();
        assert!(of(&p).iter().zip(&p).all(|(q, p)| q >= p));
    }

    #[rstest]
    #[case::not_a_number(f64::NAN, "row 1 of the partition: p must be between 0 and 1, got NaN")]
    #[case::negative(-0.5, "got -0.5")]
    #[case::above_one(1.5, "got 1.5")]
    fn what_is_no_p_value_is_refused(#[case] p: f64, #[case] message: &str) {
        let error = adjusted(&Float64Array::from(vec![Some(0.5), Some(p)])).unwrap_err().strip_backtrace();
        assert!(error.contains(message), "{error}");
    }

    /// SplitMix64: draws that are uniform in [0, 1).
    struct Uniform(u64);

    impl Uniform {
        fn draw(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Conformal p-values of 400 rows, a twentieth of them strange, against one set of calibration rows for all: the
    /// mean false-discovery proportion is at most the level, and would not be without the adjustment.
    #[rstest]
    #[case::few_calibration_rows(199)]
    #[case::more(499)]
    #[case::many(1999)]
    fn the_false_discovery_rate_is_kept(#[case] calibration_rows: usize) {
        const LEVEL: f64 = 0.1;
        const TABLES: usize = 400;
        let mut random = Uniform(7);
        let (mut proportions, mut raw, mut found) = (Vec::new(), 0.0, 0);
        for _ in 0..TABLES {
            let calibration: Vec<f32> = (0..calibration_rows).map(|_| random.draw() as f32).collect();
            let calibration = Calibration::try_new(calibration).unwrap();
            let calibration = calibration.scores(Score::Cost).unwrap();
            // Of the strange rows three in four score above every normal one, and the others among the highest tenth.
            let strange = |row: usize| row < 20;
            let score = |row, u: f64| if strange(row) { 0.9 + 0.4 * u } else { u };
            let p: Vec<_> = (0..400).map(|row| Some(calibration.p_value(score(row, random.draw()) as f32))).collect();
            let proportion = |values: &[Option<f64>]| {
                let flagged: Vec<_> = (0..400).filter(|row| values[*row].unwrap() <= LEVEL).collect();
                let false_ones = flagged.iter().filter(|row| !strange(**row)).count();
                (false_ones as f64 / flagged.len().max(1) as f64, flagged.len() - false_ones)
            };
            let (share, true_ones) = proportion(&of(&p));
            proportions.push(share);
            found += true_ones;
            raw += proportion(&p).0 / TABLES as f64;
        }
        let mean = proportions.iter().sum::<f64>() / TABLES as f64;
        let variance = proportions.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (TABLES - 1) as f64;
        let error = (variance / TABLES as f64).sqrt();
        assert!(mean <= LEVEL + 3.0 * error, "false-discovery rate {mean} ± {error} at level {LEVEL}");
        assert!(raw > 0.5, "without the adjustment {raw}");
        assert!(found > 0, "none found");
    }
}
