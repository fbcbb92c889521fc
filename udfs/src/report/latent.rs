//! The latent map: codes on their first two principal components.

use std::collections::BTreeMap;

use datafusion::common::{Result, exec_datafusion_err};
use maud::{Markup, html};
use wae_core::objective::frechet::Moments;

use super::chart::{Axis, Frame, coordinate, count, fixed};

/// Most values of the label column that have a colour each.
pub(super) const MOST_LABELS: usize = 10;

/// Half the side of a point's mark.
const RADIUS: f64 = 2.7;

/// A group of points: its name, and their positions in the list.
type Group = (String, Vec<usize>);

/// One image on the map.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) code: Vec<f32>,
    pub(super) is_outlier: Option<bool>,
    /// The value of the label column, if one is given.
    pub(super) label: Option<String>,
}

/// Codes on their principal components, with the share of the variance that each component has, in percent.
#[derive(Debug, Clone, PartialEq)]
struct Projection {
    points: Vec<(f64, f64)>,
    shares: (f64, f64),
}

impl Projection {
    /// Projects codes, (n, width); a code of one value has 0 in the other direction.
    fn try_new(codes: &[f64], width: usize) -> wae_core::Result<Self> {
        let moments = Moments::try_new(codes, width)?;
        let mut components = moments.principal_components(2)?; // (2, Z), or (1, 1)
        components.resize(2 * width, 0.0);
        // A direction and its opposite serve alike: the sign is that of its largest value, so that maps compare.
        for component in components.chunks_exact_mut(width) {
            let largest = component.iter().copied().fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            component.iter_mut().for_each(|v| *v *= largest.signum());
        }
        let (first, second) = components.split_at(width);
        let along = |code: &[f64], component: &[f64]| -> f64 {
            code.iter().zip(moments.mean()).zip(component).map(|((value, mean), axis)| (value - mean) * axis).sum()
        };
        let points: Vec<_> = codes.chunks_exact(width).map(|c| (along(c, first), along(c, second))).collect();
        let total: f64 = moments.scatter().iter().step_by(width + 1).sum();
        let share = |squares: f64| if total > 0.0 { 100.0 * squares / total } else { 0.0 };
        let shares = (share(points.iter().map(|p| p.0 * p.0).sum()), share(points.iter().map(|p| p.1 * p.1).sum()));
        Ok(Self { points, shares })
    }

    fn frame(&self) -> Frame {
        let domain = |values: &dyn Fn(&(f64, f64)) -> f64| {
            let ends = (f64::INFINITY, f64::NEG_INFINITY);
            let (low, high) = self.points.iter().map(values).fold(ends, |(l, h), v| (l.min(v), h.max(v)));
            let margin = if high > low { 0.03 * (high - low) } else { 1.0 };
            (low - margin, high + margin)
        };
        let title = |which: &str, share| format!("{which} principal component ({} % of the variance)", fixed(share, 1));
        Frame {
            width: 760.0,
            height: 480.0,
            x: Axis { title: title("first", self.shares.0), domain: domain(&|p| p.0), ticks: 9 },
            y: Axis { title: title("second", self.shares.1), domain: domain(&|p| p.1), ticks: 6 },
        }
    }

    /// One map: each group with a colour and a shape of its own, the later over the earlier.
    fn figure(&self, id: &str, by: &str, groups: &[Group]) -> Markup {
        let frame = self.frame();
        let x = frame.x();
        let y = frame.y();
        let marks = |group: usize, members: &[usize]| -> String {
            let points = members.iter().map(|member| self.points[*member]);
            points.map(|point| mark(group, x.at(point.0), y.at(point.1))).collect()
        };
        let content = html! {
            @for (i, (name, members)) in groups.iter().enumerate() {
                @let class = format!("mark-{i}");
                path.mark.(class) d=(marks(i, members)) { title { (name) } }
            }
        };
        let counts: Vec<String> =
            groups.iter().map(|(name, members)| format!("{name}: {}", count(members.len()))).collect();
        let description = format!("{} points. {}.", count(self.points.len()), counts.join(", "));
        html! {
            figure {
                (frame.svg(id, &format!("Codes by {by}"), &description, &content))
                figcaption {
                    ul.legend {
                        @for (i, (name, members)) in groups.iter().enumerate() {
                            @let class = format!("mark-{i}");
                            li {
                                svg.dot aria-hidden="true" viewBox="0 0 10 10" {
                                    path.mark.(class) d=(mark(i, 5.0, 5.0)) {}
                                }
                                (name) " (" (count(members.len())) ")"
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The mark of a group at a point: a disc, square, triangle, diamond or upright cross, since colours alone do not tell
/// groups apart for everybody.
fn mark(group: usize, x: f64, y: f64) -> String {
    let r = RADIUS;
    let at = |dx: f64, dy: f64| format!("{} {}", coordinate(x + dx), coordinate(y + dy));
    match group % 5 {
        0 => format!("M{}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", at(-r, 0.0), d = 2.0 * r),
        1 => format!("M{}h{s}v{s}h-{s}z", at(-2.4, -2.4), s = 4.8),
        2 => format!("M{}l3.2 5.4h-6.4z", at(0.0, -3.3)),
        3 => format!("M{}l3.4 3.4l-3.4 3.4l-3.4 -3.4z", at(0.0, -3.4)),
        _ => format!("M{}h2v2.4h2.4v2h-2.4v2.4h-2v-2.4h-2.4v-2h2.4z", at(-1.0, -3.4)),
    }
}

/// Outliers and the rest; of a model without calibration, all.
fn by_outlier(points: &[Point]) -> Vec<Group> {
    let of = |flag: Option<bool>| (0..points.len()).filter(|i| points[*i].is_outlier == flag).collect::<Vec<_>>();
    let groups = [("no outlier", Some(false)), ("outlier", Some(true)), ("image", None)];
    let groups = groups.into_iter().map(|(name, flag)| (name.to_owned(), of(flag)));
    groups.filter(|(_, members)| !members.is_empty()).collect()
}

/// The points of each label, in the order of the labels, numbers by value; `None` if they are more than
/// [`MOST_LABELS`].
fn by_label(points: &[Point]) -> Option<Vec<Group>> {
    let mut groups: BTreeMap<(Option<i64>, &str), Vec<usize>> = BTreeMap::new();
    for (i, point) in points.iter().enumerate() {
        let label = point.label.as_deref().unwrap_or("NULL");
        groups.entry((label.parse().ok(), label)).or_default().push(i);
        if groups.len() > MOST_LABELS {
            return None;
        }
    }
    Some(groups.into_iter().map(|((_, label), members)| (label.to_owned(), members)).collect())
}

/// The figures of the map: by outlier, and by label where a column is given.
///
/// # Errors
/// An execution error where the codes have no principal components.
pub(super) fn figures(points: &[Point], label: Option<&str>) -> Result<Markup> {
    let Some(width) = points.first().map(|p| p.code.len()).filter(|_| points.len() > 1) else {
        return Ok(html! { p { "A map needs two images." } });
    };
    let codes: Vec<f64> = points.iter().flat_map(|p| p.code.iter().copied().map(f64::from)).collect();
    let projection = Projection::try_new(&codes, width).map_err(|e| exec_datafusion_err!("report: latent map: {e}"))?;
    let labels = label.map(|label| (label, by_label(points)));
    Ok(html! {
        (projection.figure("map", "outlier", &by_outlier(points)))
        @match labels {
            Some((label, Some(groups))) => {
                h3 { "The same by " code { (label) } }
                (projection.figure("map-by-label", label, &groups))
            }
            Some((label, None)) => p.note {
                "The column " code { (label) } " has more than " (MOST_LABELS) " values here: too many to colour."
            }
            None => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(is_outlier: Option<bool>, label: Option<&str>) -> Point {
        Point { code: vec![0.0], is_outlier, label: label.map(str::to_owned) }
    }

    /// Points at ±2 on the line through (3, 4), and at ±1 across it: the components are (0.6, 0.8) and (−0.8, 0.6), the
    /// variances 4 : 1.
    #[test]
    fn components_by_hand() {
        let codes = [11.2, 11.6, 8.8, 8.4, 9.2, 10.6, 10.8, 9.4];
        let projection = Projection::try_new(&codes, 2).unwrap();
        let expected = [(2.0, 0.0), (-2.0, 0.0), (0.0, -1.0), (0.0, 1.0)];
        for (got, expected) in projection.points.iter().zip(expected) {
            assert!((got.0 - expected.0).abs() < 1e-9 && (got.1 - expected.1).abs() < 1e-9, "{got:?} {expected:?}");
        }
        assert!((projection.shares.0 - 80.0).abs() < 1e-9 && (projection.shares.1 - 20.0).abs() < 1e-9);
        let frame = projection.frame();
        assert!((frame.x.domain.0 + 2.12).abs() < 1e-9 && (frame.y.domain.1 - 1.06).abs() < 1e-9);
    }

    #[test]
    fn codes_of_one_value_and_equal_codes() {
        let projection = Projection::try_new(&[1.0, 3.0], 1).unwrap();
        assert_eq!(projection.points, [(-1.0, 0.0), (1.0, 0.0)]);
        assert_eq!(projection.shares, (100.0, 0.0));
        assert_eq!(Projection::try_new(&[1.0; 4], 2).unwrap().shares, (0.0, 0.0));
    }

    #[test]
    fn groups_are_sorted_and_bounded() {
        let points = ["10", "9", "x", "9"].map(|l| point(Some(l == "x"), Some(l)));
        let names = |groups: Vec<Group>| groups.into_iter().map(|(n, m)| format!("{n}:{m:?}")).collect::<Vec<_>>();
        assert_eq!(names(by_label(&points).unwrap()), ["x:[2]", "9:[1, 3]", "10:[0]"]);
        assert_eq!(names(by_outlier(&points)), ["no outlier:[0, 1, 3]", "outlier:[2]"]);
        assert_eq!(names(by_outlier(&[point(None, None)])), ["image:[0]"]);
        let many: Vec<Point> = (0..11).map(|i| point(None, Some(&i.to_string()))).collect();
        assert!(by_label(&many).is_none() && by_label(&many[..10]).is_some());
    }

    #[test]
    fn marks_stand_around_their_point() {
        assert_eq!(mark(0, 10.0, 20.0), "M7.3 20a2.7 2.7 0 1 0 5.4 0a2.7 2.7 0 1 0 -5.4 0z");
        assert_eq!(mark(6, 10.0, 20.0), "M7.6 17.6h4.8v4.8h-4.8z");
    }

    #[test]
    fn names_from_the_data_are_escaped() {
        let points = [point(Some(true), Some("<b>")), point(Some(false), None)];
        let html = figures(&points, Some("a&b")).unwrap().into_string();
        assert!(html.contains("&lt;b&gt;") && html.contains("a&amp;b") && !html.contains("<b>"), "{html}");
        assert!(figures(&points[..1], None).unwrap().into_string().contains("needs two images"));
    }
}
