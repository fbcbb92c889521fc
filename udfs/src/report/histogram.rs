//! The histogram of scores: held-out rows beside the table's, with the threshold.

use maud::{Markup, html};

use super::chart::{Axis, Frame, coordinate, count, number};
use super::level::Level;

/// The number of bins.
const BINS: usize = 40;

/// The number of values in each of equal bins of [0, upper); those at or beyond `upper` are in the last.
fn bins(values: &[f32], upper: f64, count: usize) -> Vec<usize> {
    let mut bins = vec![0; count];
    for value in values {
        // `as` takes what is negative to 0.
        let bin = (f64::from(*value) / upper * count as f64) as usize;
        bins[bin.min(count - 1)] += 1;
    }
    bins
}

/// The end of the axis: a quarter beyond the held-out rows and the threshold, or further, so that at most one row in a
/// hundred is beyond; never beyond the largest. A few enormous scores would push all others into the first bin.
fn upper(held_out: &[f32], rows: &[f32]) -> f64 {
    let mut sorted = rows.to_vec();
    sorted.sort_by(f32::total_cmp);
    let largest = |values: &[f32]| values.iter().copied().fold(0.0_f32, f32::max);
    let most = sorted.get(sorted.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(0.0);
    let wide = (1.25 * largest(held_out)).max(most);
    let upper = f64::from(wide.min(largest(held_out).max(largest(rows))));
    if upper > 0.0 { upper } else { 1.0 }
}

/// Bins as percentages of their sum.
fn percentages(bins: &[usize]) -> Vec<f64> {
    let sum = bins.iter().sum::<usize>().max(1);
    bins.iter().map(|n| 100.0 * *n as f64 / sum as f64).collect()
}

/// The outline of bars as a path, from the axis up and back to it.
fn outline(frame: &Frame, upper: f64, heights: &[f64]) -> String {
    let x = frame.x();
    let y = frame.y();
    let edge = |bin: usize| coordinate(x.at(upper * bin as f64 / heights.len() as f64));
    let mut path = format!("M{} {}", edge(0), coordinate(y.at(0.0)));
    for (bin, height) in heights.iter().enumerate() {
        path += &format!("V{}H{}", coordinate(y.at(*height)), edge(bin + 1));
    }
    path + &format!("V{}", coordinate(y.at(0.0)))
}

/// The data of the figure.
pub(super) struct Histogram<'a> {
    /// The scores of the held-out rows; `None` for a model without calibration.
    pub(super) held_out: Option<&'a [f32]>,
    /// The scores of the table's rows.
    pub(super) rows: &'a [f32],
    /// Scores above it are outliers.
    pub(super) threshold: Option<f32>,
    /// The rate of false alarms at that threshold; `None` where there is none.
    pub(super) level: Option<Level>,
    /// The name of the score, in words.
    pub(super) name: &'a str,
    /// Its unit, in words.
    pub(super) unit: &'a str,
}

impl Histogram<'_> {
    /// The figure: chart, legend, table of numbers.
    pub(super) fn figure(&self) -> Markup {
        let upper = upper(self.held_out.unwrap_or(&[]), self.rows);
        let held_out = self.held_out.map(|scores| bins(scores, upper, BINS));
        let rows = bins(self.rows, upper, BINS);
        let beyond = self.rows.iter().filter(|score| f64::from(**score) > upper).count();
        html! {
            figure {
                (self.chart(upper, held_out.as_deref(), &rows))
                figcaption {
                    ul.legend {
                        @if let Some(scores) = self.held_out {
                            li {
                                span.swatch.held-out {}
                                "calibration rows (" (count(scores.len())) ")"
                            }
                        }
                        li { span.swatch.rows {} "rows of the table (" (count(self.rows.len())) ")" }
                    }
                    p {
                        "Each bar is a share of its own group, so that groups of any size compare."
                        @if beyond > 0 {
                            " Rows of the table that score more than " (number(upper)) ": " (count(beyond))
                            ", counted in the last bar."
                        }
                    }
                    (table(upper, held_out.as_deref(), &rows))
                }
            }
        }
    }

    fn chart(&self, upper: f64, held_out: Option<&[usize]>, rows: &[usize]) -> Markup {
        let grey = held_out.map(percentages);
        let colour = percentages(rows);
        let highest = grey.iter().flatten().chain(&colour).copied().fold(1.0, f64::max);
        let frame = Frame {
            width: 760.0,
            height: 330.0,
            x: Axis { title: format!("{}: {}", self.name, self.unit), domain: (0.0, upper), ticks: 9 },
            y: Axis { title: "share of rows, %".to_owned(), domain: (0.0, highest * 1.1), ticks: 5 },
        };
        let content = html! {
            @if let Some(grey) = &grey { path.held-out d=(outline(&frame, upper, grey)) {} }
            path.rows d=(outline(&frame, upper, &colour)) {}
            @if let Some(threshold) = self.threshold { (self.threshold_line(&frame, threshold)) }
        };
        frame.svg("scores", &format!("Histogram of the {}", self.name), &self.description(), &content)
    }

    fn threshold_line(&self, frame: &Frame, threshold: f32) -> Markup {
        let x = frame.x().at(f64::from(threshold));
        let top = frame.y().at(frame.y.domain.1);
        let bottom = frame.y().at(0.0);
        // The text stands where there is room for it.
        let (anchor, offset) = if x > frame.width / 2.0 { ("end", -7.0) } else { ("start", 7.0) };
        html! {
            line.threshold x1=(coordinate(x)) x2=(coordinate(x)) y1=(coordinate(top)) y2=(coordinate(bottom)) {}
            text.note x=(coordinate(x + offset)) y=(coordinate(top + 11.0)) text-anchor=(anchor) {
                "threshold" @if let Some(level) = self.level { " at α = " (level) } ": " (number(f64::from(threshold)))
            }
        }
    }

    fn description(&self) -> String {
        let mut text = match self.held_out {
            Some(scores) => format!("Calibration rows: median {} {}. ", self.name, number(median(scores))),
            None => String::new(),
        };
        text += &format!("Rows of the table: median {} {}.", self.name, number(median(self.rows)));
        if let Some(threshold) = self.threshold {
            let above = self.rows.iter().filter(|score| **score > threshold).count();
            text += &format!(" {} of them are above the threshold {}.", count(above), number(f64::from(threshold)));
        }
        text
    }
}

/// The lower median; 0 of nothing.
fn median(values: &[f32]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().map_or(0.0, f64::from)
}

fn table(upper: f64, held_out: Option<&[usize]>, rows: &[usize]) -> Markup {
    let edge = |bin: usize| number(upper * bin as f64 / BINS as f64);
    html! {
        details {
            summary { "The numbers" }
            div.scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "score from" }
                            @if held_out.is_some() { th scope="col" { "calibration rows" } }
                            th scope="col" { "rows of the table" }
                        }
                    }
                    tbody {
                        @for (bin, n) in rows.iter().enumerate() {
                            tr {
                                th scope="row" { (edge(bin)) }
                                @if let Some(held_out) = held_out { td { (count(held_out[bin])) } }
                                td { (count(*n)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_by_hand() {
        // Width 2: [0, 2), [2, 4), [4, 6), [6, 8) and beyond.
        assert_eq!(bins(&[0.0, 1.9, 2.0, 5.0, 8.0, 100.0], 8.0, 4), [2, 1, 1, 2]);
        assert_eq!(percentages(&[1, 3]), [25.0, 75.0]);
        assert_eq!(percentages(&[0, 0]), [0.0, 0.0]);
    }

    #[test]
    fn the_axis_ends_where_most_rows_do() {
        // All rows are close: the largest of all.
        assert_eq!(upper(&[4.0, 8.0], &[1.0, 9.0]), 9.0);
        // One of 200 is far off: a quarter beyond the held-out rows.
        let mut rows = vec![1.0; 199];
        rows.push(1e6);
        assert_eq!(upper(&[4.0, 8.0], &rows), 10.0);
        // Half are: they are shown.
        assert_eq!(upper(&[4.0, 8.0], &[1.0, 1.0, 50.0, 50.0]), 50.0);
        assert_eq!((upper(&[], &[]), upper(&[], &[0.0])), (1.0, 1.0));
    }

    #[test]
    fn the_outline_steps_from_edge_to_edge() {
        let axis = |high| Axis { title: String::new(), domain: (0.0, high), ticks: 5 };
        // The plot is 100 wide from 64 on, and 100 high down to 114.
        let frame = Frame { width: 178.0, height: 162.0, x: axis(10.0), y: axis(100.0) };
        assert_eq!(outline(&frame, 10.0, &[25.0, 75.0]), "M64 114V89H114V39H164V114");
    }

    #[test]
    fn the_figure_says_what_is_above() {
        let histogram = Histogram {
            held_out: Some(&[1.0, 2.0, 3.0]),
            rows: &[2.0, 4.0, 5.0, 5000.0],
            threshold: Some(3.0),
            level: Some(Level::of_rate(0.5)),
            name: "cost",
            unit: "a < b",
        };
        let html = histogram.figure().into_string();
        assert!(
            html.contains("median cost 2.000. Rows of the table: median cost 4.000. 3 of them are above"),
            "{html}"
        );
        assert!(html.contains("threshold at α = 0.5: 3.000") && html.contains("a &lt; b"), "{html}");
        assert!(html.contains("rows of the table (4)") && html.contains("that score more than 5.000: 1,"), "{html}");
    }
}
