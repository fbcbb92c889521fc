//! The training curves: each value of the history by epoch.

use maud::{Markup, html};

use super::chart::{Axis, Frame, Scale, coordinate, number};

/// Most epochs that are drawn and listed.
const MOST: usize = 200;

/// The history of a training, a value an epoch in each column.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    pub(super) epochs: Vec<f64>,
    pub(super) columns: Vec<Column>,
}

/// One column: its name, which chart it is in, and its values.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// The charts: the id, the title of the vertical axis, and the columns.
const CHARTS: [(&str, &str, &[&str]); 2] = [
    (
        "training-cost",
        "mean of an image, units of the cost",
        &["loss", "reconstruction_cost", "holdout_reconstruction_cost"],
    ),
    ("training-divergence", "divergence from the prior", &["divergence", "holdout_divergence"]),
];

/// The rows that are drawn, at most about `most`: all, or every k-th and the last.
fn drawn(rows: usize, most: usize) -> Vec<usize> {
    let stride = rows.div_ceil(most.max(1)).max(1);
    (0..rows).filter(|row| row % stride == 0 || row + 1 == rows).collect()
}

/// A line through the values that there are; it is broken where there is none.
fn line(x: &Scale, y: &Scale, points: &[(f64, Option<f64>)]) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for (at, value) in points {
        match value {
            Some(value) => {
                path += &format!("{pen}{} {}", coordinate(x.at(*at)), coordinate(y.at(*value)));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    path
}

impl History {
    /// Both charts, and all numbers as a table.
    pub(super) fn figures(&self) -> Markup {
        let rows = drawn(self.epochs.len(), MOST);
        html! {
            div.pair {
                @for (id, title, names) in CHARTS {
                    @let columns = self.present(names);
                    @if !columns.is_empty() { (self.figure(id, title, &columns, &rows)) }
                }
            }
            @if rows.len() < self.epochs.len() {
                p.note {
                    "Of " (self.epochs.len()) " epochs, " (rows.len()) " are drawn and listed: every "
                    (self.epochs.len().div_ceil(MOST)) "th, and the last."
                }
            }
            (self.table(&rows))
        }
    }

    /// The columns of these names that hold a value.
    fn present(&self, names: &[&str]) -> Vec<&Column> {
        let holds = |c: &&Column| names.contains(&c.name) && c.values.iter().any(Option::is_some);
        self.columns.iter().filter(holds).collect()
    }

    fn frame(&self, title: &str, columns: &[&Column], rows: &[usize]) -> Frame {
        let values = columns.iter().flat_map(|c| rows.iter().filter_map(|r| c.values[*r]));
        let (low, high) = values.fold((0.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let ends = (self.epochs.first().copied().unwrap_or(1.0), self.epochs.last().copied().unwrap_or(1.0));
        Frame {
            width: 480.0,
            height: 300.0,
            // There is no half of an epoch.
            x: Axis { title: "epoch".to_owned(), domain: ends, ticks: ((ends.1 - ends.0) as usize).clamp(1, 8) },
            y: Axis {
                title: title.to_owned(),
                domain: (low, if high > low { high * 1.05 } else { low + 1.0 }),
                ticks: 5,
            },
        }
    }

    fn figure(&self, id: &str, title: &str, columns: &[&Column], rows: &[usize]) -> Markup {
        let drawn = |column: &Column| rows.iter().map(|r| (self.epochs[*r], column.values[*r])).collect::<Vec<_>>();
        let frame = self.frame(title, columns, rows);
        let x = frame.x();
        let y = frame.y();
        let content = html! {
            @for (i, column) in columns.iter().enumerate() {
                @let class = format!("series-{i}");
                path.series.(class) d=(line(&x, &y, &drawn(column))) {}
                @for (at, value) in drawn(column).into_iter().filter(|_| rows.len() <= 30) {
                    @if let Some(value) = value {
                        circle.(class) cx=(coordinate(x.at(at))) cy=(coordinate(y.at(value))) r="2.6" {}
                    }
                }
            }
        };
        html! {
            figure {
                (frame.svg(id, &format!("Training: {title}"), &description(columns), &content))
                figcaption {
                    ul.legend {
                        @for (i, column) in columns.iter().enumerate() {
                            li { (swatch(i)) (label(column.name)) }
                        }
                    }
                }
            }
        }
    }

    fn table(&self, rows: &[usize]) -> Markup {
        html! {
            details {
                summary { "The numbers" }
                div.scroll {
                    table {
                        thead {
                            tr {
                                th scope="col" { "epoch" }
                                @for column in &self.columns { th scope="col" { (label(column.name)) } }
                            }
                        }
                        tbody {
                            @for row in rows {
                                tr {
                                    th scope="row" { (self.epochs[*row]) }
                                    @for column in &self.columns {
                                        td { (column.values[*row].map_or("–".to_owned(), number)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A column's name for people.
fn label(name: &str) -> String {
    name.replace("holdout_", "held-out ").replace('_', " ")
}

fn swatch(series: usize) -> Markup {
    let class = format!("series-{series}");
    html! {
        svg.key aria-hidden="true" viewBox="0 0 30 10" { path.series.(class) d="M1 5H29" {} }
    }
}

/// The first and the last value of each column.
fn description(columns: &[&Column]) -> String {
    let ends = |column: &&Column| {
        let mut values = column.values.iter().flatten();
        let first = values.next()?;
        Some(match values.next_back() {
            Some(last) => format!("{} from {} to {}.", label(column.name), number(*first), number(*last)),
            None => format!("{}: {}.", label(column.name), number(*first)),
        })
    };
    columns.iter().filter_map(ends).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_where_a_value_is_missing() {
        let x = Scale::new((1.0, 5.0), (0.0, 40.0));
        let y = Scale::new((0.0, 10.0), (10.0, 0.0));
        let points = [(1.0, Some(10.0)), (2.0, Some(5.0)), (3.0, None), (4.0, Some(0.0)), (5.0, Some(2.5))];
        assert_eq!(line(&x, &y, &points), "M0 0L10 5M30 10L40 7.5");
        assert_eq!(line(&x, &y, &[(1.0, None)]), "");
    }

    #[test]
    fn long_trainings_are_thinned_to_their_end() {
        assert_eq!(drawn(4, 10), [0, 1, 2, 3]);
        assert_eq!(drawn(10, 4), [0, 3, 6, 9]);
        assert_eq!(drawn(9, 4), [0, 3, 6, 8]);
        assert!(drawn(0, 4).is_empty());
    }

    #[test]
    fn a_chart_without_values_is_left_out() {
        let history = History {
            epochs: vec![1.0, 2.0],
            columns: vec![
                Column { name: "loss", values: vec![Some(9.0), Some(3.0)] },
                Column { name: "divergence", values: vec![None, None] },
            ],
        };
        let html = history.figures().into_string();
        assert!(html.contains("loss from 9.000 to 3.000.") && html.contains("training-cost-title"), "{html}");
        assert!(!html.contains("training-divergence-title") && html.contains("<td>–</td>"), "{html}");
        assert_eq!(label("holdout_reconstruction_cost"), "held-out reconstruction cost");
    }
}
