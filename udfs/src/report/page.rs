//! The page: its head, its sections, its style.

use datafusion::common::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::chart::{count, short};
use super::curves::History;
use super::facts::Model;
use super::gallery::{Gallery, NO_PICTURES, SAMPLES, SEED, SIDE, sample_list};
use super::histogram::Histogram;
use super::level::Level;
use super::scan::{POINTS, STRANGEST, Scan};
use super::{Session, latent};

const STYLE: &str = include_str!("style.css");

/// Nothing but what is in the file may be loaded, whatever a label or a name contains.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// The sections, with their headings.
const SECTIONS: [(&str, &str); 5] = [
    ("outliers", "Outliers"),
    ("strangest", "Strangest images"),
    ("samples", "Samples from the prior"),
    ("latent", "Latent map"),
    ("training", "Training"),
];

/// The contents of the page.
pub(super) struct Page<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) model: &'a Model,
    /// `None` for a model without calibration.
    pub(super) level: Option<Level>,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) history: History,
    pub(super) scan: &'a Scan,
    pub(super) gallery: Gallery,
    pub(super) samples: Vec<String>,
}

/// The findings in one line.
pub(super) fn summary(images: usize, outliers: Option<usize>, level: Option<Level>) -> String {
    let images = count(images);
    match outliers.zip(level) {
        Some((outliers, level)) => format!("{} of {images} images are outliers at alpha = {level}", count(outliers)),
        None => format!("{images} images; the model is not calibrated, so that none is called an outlier"),
    }
}

impl Page<'_> {
    /// The whole file.
    pub(super) fn html(&self) -> Result<Markup> {
        let title = format!("Model {}", self.session.model);
        let contents =
            [self.outliers(), self.strangest(), self.samples(), self.latent()?, html! { (self.history.figures()) }];
        Ok(html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " – report" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    (self.head(&title))
                    main {
                        @for ((id, heading), content) in SECTIONS.iter().zip(contents) {
                            section id=(id) aria-labelledby={ (id) "-heading" } {
                                h2 id={ (id) "-heading" } { (heading) }
                                (content)
                            }
                        }
                    }
                    footer {
                        p { "Made by " code { "wae report" } ", datafusion-wae " (env!("CARGO_PKG_VERSION")) "." }
                    }
                }
            }
        })
    }

    fn head(&self, title: &str) -> Markup {
        html! {
            header {
                h1 { (title) }
                p.lead { (self.verdict()) }
                p {
                    "Table: " code { (self.session.source) } ", column " code { (self.session.options.image) } "."
                    @if self.scan.missing > 0 { " " (count(self.scan.missing)) " rows hold no image." }
                }
                nav aria-label="Sections" {
                    ul { @for (id, heading) in SECTIONS { li { a href={ "#" (id) } { (heading) } } } }
                }
                dl {
                    @for (name, value) in &self.facts { div { dt { (name) } dd { (value) } } }
                }
            }
        }
    }

    fn verdict(&self) -> Markup {
        let images = self.scan.scores.len();
        html! {
            @match self.scan.outliers.zip(self.level) {
                Some((outliers, level)) => {
                    strong { (count(outliers)) " of " (count(images)) " images" }
                    @if images > 0 { " (" (short(100.0 * outliers as f64 / images as f64)) " %)" }
                    " are outliers at α = " (level) "."
                }
                None => {
                    strong { (count(images)) " images" }
                    ". The model has no calibration rows: it has no p-values, and calls no image an outlier."
                }
            }
        }
    }

    fn outliers(&self) -> Markup {
        let held_out = self.model.held_out();
        let reported = |score: &f32| self.model.reported(*score);
        let scores: Option<Vec<f32>> = held_out.map(|held_out| held_out.values().iter().map(reported).collect());
        let guarantee = self.level.and_then(Level::guarantee);
        let threshold = held_out.zip(guarantee).and_then(|(held_out, guarantee)| held_out.threshold(guarantee));
        let histogram = Histogram {
            held_out: scores.as_deref(),
            rows: &self.scan.scores,
            threshold: threshold.map(|threshold| reported(&threshold.value())),
            level: self.level,
            name: self.model.score_name(),
            unit: self.model.score_unit(),
        };
        html! {
            @if let Some((held_out, level)) = held_out.zip(self.level) { (self.guarantee(held_out.len(), level)) }
            (histogram.figure())
        }
    }

    /// The promise of alpha, and its limits.
    fn guarantee(&self, held_out: usize, level: Level) -> Markup {
        let alpha = level.alpha();
        let images = self.scan.scores.len();
        let ranks = level.guarantee().map_or(0, |guarantee| guarantee.ranks(held_out));
        let most = match level.confidence() {
            None => "α".to_owned(),
            Some(_) => format!("{}/{}", count(ranks), count(held_out + 1)),
        };
        html! {
            p {
                "An outlier is an image with a p-value of at most " (most) ", ranked by its " (self.model.score_name()) " among the "
                (count(held_out)) " calibration rows, which are those held out of training or those given to "
                "wae_calibrate since: p = (1 + number of them that score at least as high) / (1 + " (count(held_out)) ")."
                @if let Some(reason) = level.reason() { " " (reason) }
            }
            p {
                strong { "What α = " (level) " promises. " }
                "An image drawn as the calibration rows were, independently of them, is flagged with probability at most "
                (short(100.0 * alpha)) " %: if all " (count(images)) " were such images, at most "
                (short(alpha * images as f64)) " would be flagged by false alarm on average over "
                @if let Some(confidence) = level.confidence() {
                    "such tables. It holds for these calibration rows with a probability of at least "
                    (short(100.0 * confidence)) " %, which is what wae.confidence asks for."
                } @else {
                    "draws of the calibration rows."
                }
                " If they are among these images, nothing is promised. "
                @if level.confidence().is_none() { "One model's rate lies around that, above it or below. " }
                "It does not say how many true outliers are found, and promises nothing about images that come from elsewhere."
            }
        }
    }

    fn strangest(&self) -> Markup {
        let shape = self.model.config().row_shape();
        let longer = shape.height().max(shape.width());
        html! {
            p {
                "The images of the highest " (self.model.score_name()) ", the highest first, at most " (STRANGEST) ". "
                @if self.model.config().backbone().is_some() {
                    "Of each: the image as the pretrained network sees it, and where it is strange"
                } @else {
                    "Of each: the image as the model sees it, its reconstruction, and where they differ"
                }
                @if let Some(label) = &self.session.options.label { "; below, its " code { (label) } }
                "."
                @if let Some(level) = self.level.filter(|_| self.model.has_anomaly_masks()) {
                    " Outlined are the places that alone would make it an outlier by the anomaly score at α = " (level) "."
                }
                @if longer > SIDE { " Shown at " (SIDE) " pixels of " (longer) "." }
            }
            (self.gallery.figures())
        }
    }

    fn samples(&self) -> Markup {
        html! {
            @if self.samples.is_empty() {
                p { (NO_PICTURES) }
            } @else {
                p { (SAMPLES) " codes drawn from the prior with seed " (SEED) ", decoded." }
                (sample_list(&self.samples))
            }
        }
    }

    fn latent(&self) -> Result<Markup> {
        let points = self.scan.points();
        let images = self.scan.scores.len();
        Ok(html! {
            p {
                "The codes of images on their first two principal components. Images close here may be apart in the "
                "other directions."
                @if points.len() < images {
                    " Of " (count(images)) " images, these are the " (count(POINTS))
                    " whose codes have the lowest hashes, a choice that does not depend on the order of rows."
                }
            }
            (latent::figures(&points, self.session.options.label.as_deref())?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let of_30 = summary(1200, Some(30), Some(Level::of_rate(0.05)));
        assert_eq!(of_30, "30 of 1,200 images are outliers at alpha = 0.05");
        assert!(summary(1200, None, None).contains("1,200 images; the model is not calibrated"));
    }

    /// The style must not end its element, nor fetch anything.
    #[test]
    fn the_style_is_self_contained() {
        assert!(!STYLE.contains('<') && !STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
