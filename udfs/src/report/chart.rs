//! The geometry that all charts share: scales, round tick marks, axes.
//!
//! A chart is inline SVG in a coordinate system of its own, [`Frame`], which the page scales to its width. Colours come
//! from the page's style sheet, by class, so that they follow its light or dark scheme.

use maud::{Markup, html};

/// Space around the plot for ticks and titles: left, right, top, bottom.
const MARGINS: [f64; 4] = [64.0, 14.0, 14.0, 48.0];

/// A linear map from values to coordinates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// `low` goes to `from`, `high` to `to`. Where both are one value, it goes to the middle.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Self {
        Self { low, high, from, to }
    }

    /// The coordinate of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = if self.high == self.low { 0.5 } else { (value - self.low) / (self.high - self.low) };
        self.from + share * (self.to - self.from)
    }
}

/// The round step, 1, 2 or 5 times a power of ten, that divides a span into at most `most` parts.
fn step(span: f64, most: usize) -> f64 {
    let least = span / most.max(1) as f64;
    let power = 10.0_f64.powf(least.log10().floor());
    // The logarithm of a power of ten may fall short of its integer.
    let fits = |factor: &f64| factor * power >= least * (1.0 - 1e-9);
    [1.0, 2.0, 5.0, 10.0].into_iter().find(fits).unwrap_or(10.0) * power
}

/// Round values between two, each with its label: at most `most` + 1.
fn ticks(low: f64, high: f64, most: usize) -> Vec<(f64, String)> {
    if !(high - low).is_finite() || high <= low {
        return vec![(low, number(low))];
    }
    let step = step(high - low, most);
    let decimals = (-(step * (1.0 + 1e-9)).log10().floor()).max(0.0) as usize;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    let tick = |i: i64| (i as f64 * step, fixed(i as f64 * step, decimals));
    (first..=last).map(tick).collect()
}

/// A number with so many decimals, and commas between thousands.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if decimals > 6 {
        return format!("{value:.1e}");
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let sign = if value < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) { "−" } else { "" };
    format!("{sign}{}{rest}", grouped(whole))
}

/// A number with four significant digits.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let digits = value.abs().log10().floor();
    if digits < -4.0 { format!("{value:.2e}") } else { fixed(value, (3.0 - digits).max(0.0) as usize) }
}

/// A number with at most four significant digits, without zeros at its end.
pub(super) fn short(value: f64) -> String {
    let text = number(value);
    if text.contains('.') && !text.contains('e') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// An integer with commas between thousands.
pub(super) fn count(value: usize) -> String {
    grouped(&value.to_string())
}

fn grouped(digits: &str) -> String {
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One axis: its title with the unit, the values that it spans, and the most steps between its ticks.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) domain: (f64, f64),
    pub(super) ticks: usize,
}

impl Axis {
    fn ticks(&self) -> Vec<(f64, String)> {
        ticks(self.domain.0, self.domain.1, self.ticks)
    }
}

/// A plot's rectangle with its axes.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Frame {
    /// The horizontal scale, from left to right.
    pub(super) fn x(&self) -> Scale {
        Scale::new(self.x.domain, (MARGINS[0], self.width - MARGINS[1]))
    }

    /// The vertical scale: coordinates grow downwards.
    pub(super) fn y(&self) -> Scale {
        Scale::new(self.y.domain, (self.height - MARGINS[3], MARGINS[2]))
    }

    /// The chart: axes under `content`. The title and the description are what a screen reader says.
    pub(super) fn svg(&self, id: &str, title: &str, description: &str, content: &Markup) -> Markup {
        let label = format!("{id}-title {id}-description");
        html! {
            svg role="img" aria-labelledby=(label) viewBox=(format!("0 0 {} {}", self.width, self.height)) {
                title id=(format!("{id}-title")) { (title) }
                desc id=(format!("{id}-description")) { (description) }
                (self.axes())
                (content)
            }
        }
    }

    fn axes(&self) -> Markup {
        let x = self.x();
        let y = self.y();
        let left = x.from;
        let right = x.to;
        let top = y.to;
        let bottom = y.from;
        let middle = (top + bottom) / 2.0;
        html! {
            @for (value, text) in self.y.ticks() {
                @let at = coordinate(y.at(value));
                line.grid x1=(left) x2=(right) y1=(at) y2=(at) {}
                text.tick x=(left - 8.0) y=(at) dy="0.32em" text-anchor="end" { (text) }
            }
            line.axis x1=(left) x2=(right) y1=(bottom) y2=(bottom) {}
            @for (value, text) in self.x.ticks() {
                @let at = coordinate(x.at(value));
                line.axis x1=(at) x2=(at) y1=(bottom) y2=(bottom + 5.0) {}
                text.tick x=(at) y=(bottom + 19.0) text-anchor="middle" { (text) }
            }
            text.title x=((left + right) / 2.0) y=(self.height - 6.0) text-anchor="middle" { (self.x.title) }
            text.title x="0" y="0" text-anchor="middle" transform=(format!("translate(13 {middle}) rotate(-90)")) {
                (self.y.title)
            }
        }
    }
}

/// A coordinate as SVG: a tenth of a unit is less than a pixel.
pub(super) fn coordinate(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_by_hand() {
        let scale = Scale::new((10.0, 30.0), (0.0, 100.0));
        assert_eq!([10.0, 15.0, 30.0, 40.0].map(|v| scale.at(v)), [0.0, 25.0, 100.0, 150.0]);
        let upwards = Scale::new((0.0, 4.0), (80.0, 0.0));
        assert_eq!([0.0, 1.0, 4.0].map(|v| upwards.at(v)), [80.0, 60.0, 0.0]);
        assert_eq!(Scale::new((3.0, 3.0), (0.0, 10.0)).at(3.0), 5.0);
    }

    #[test]
    fn ticks_are_round_and_inside() {
        let labels = |low, high, most| ticks(low, high, most).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(labels(0.0, 100.0, 5), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(0.0, 0.35, 5), ["0.0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(-0.03, 0.1, 4), ["0.00", "0.05", "0.10"]);
        assert_eq!(labels(-1.5, 1.5, 3), ["−1", "0", "1"]);
        assert_eq!(labels(0.0, 25_000.0, 3), ["0", "10,000", "20,000"]);
        assert_eq!(labels(1.0, 3.0, 10), ["1.0", "1.2", "1.4", "1.6", "1.8", "2.0", "2.2", "2.4", "2.6", "2.8", "3.0"]);
        // One value, as of a training of one epoch.
        assert_eq!(ticks(7.0, 7.0, 5), [(7.0, "7.000".to_owned())]);
    }

    #[test]
    fn numbers_are_written_for_people() {
        for (value, text) in [
            (0.0, "0"),
            (153.42, "153.4"),
            (0.012_36, "0.01236"),
            (12_345.678, "12,346"),
            (-2.5, "−2.500"),
            (0.000_012, "1.20e-5"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        // A number that rounds to 0 has no sign.
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!([1.0, 2.25, -0.04].map(coordinate), ["1", "2.2", "-0"]);
    }

    #[test]
    fn numbers_lose_their_zeros() {
        let texts = [1.0, 0.05, 15.0, 27.47, 1500.0, 0.0].map(short);
        assert_eq!(texts, ["1", "0.05", "15", "27.47", "1,500", "0"]);
    }

    #[test]
    fn the_plot_lies_inside_the_margins() {
        let axis = |high| Axis { title: "t <t>".to_owned(), domain: (0.0, high), ticks: 5 };
        let frame = Frame { width: 200.0, height: 100.0, x: axis(10.0), y: axis(1.0) };
        assert_eq!((frame.x().at(0.0), frame.x().at(10.0)), (64.0, 186.0));
        assert_eq!((frame.y().at(0.0), frame.y().at(1.0)), (52.0, 14.0));
        let svg = frame.svg("id", "a & b", "d", &html! { g {} }).into_string();
        assert!(svg.contains("<title id=\"id-title\">a &amp; b</title>") && svg.contains("t &lt;t&gt;"), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 200 100\"") && svg.ends_with("<g></g></svg>"), "{svg}");
    }
}
