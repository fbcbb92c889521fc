//! What each option of `wae_train` means, for the SQL reference.

/// An option, in Markdown.
pub(crate) struct OptionText {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its value where it is left out, as SQL writes it.
    pub(crate) default: &'static str,
    /// What it takes, and what that does.
    pub(crate) values: &'static str,
}

const fn option(name: &'static str, default: &'static str, values: &'static str) -> OptionText {
    OptionText { name, default, values }
}

/// Every option, those that matter most first.
pub(crate) const OPTIONS: [OptionText; 19] = [
    option("epochs", "`20`", "passes over the training rows, 1 to 1000000"),
    option("batch_size", "`100`", "images a step, 2 to 1048576; an incomplete last batch is left out"),
    option("learning_rate", "`0.001`", "Adam's initial learning rate, above 0 and at most 1 (β = 0.5, 0.999)"),
    option(
        "schedule",
        "`'step'`",
        "factor on the learning rate: `'step'` (½ from 60 % of the epochs on, ⅕ from 80 %), `'manual'` (½ from epoch \
         30 on, ⅕ from 50, ⅒ from 100), `'smooth'` (geometric, down to 1/100), `'constant'`",
    ),
    option(
        "network",
        "`'auto'`",
        "`'auto'` (halves while the larger side exceeds 8 pixels and the smaller stays at 4 or more; widths 32, 64, \
         128, 256, 256, ...), `'small'` (32, 64, 128), `'mnist'` and `'celeba'` (the paper's), or the encoder's \
         widths, such as `'32,64,128'`, which the decoder mirrors",
    ),
    option(
        "kernel",
        "`'imq'`",
        "a word is the kernel of the MMD: `'imq'` or `'rbf'`; a number is the side of the convolution kernel, 1 to 7 \
         (4, or 5 with `'celeba'`)",
    ),
    option("latent_dim", "`'auto'`", "values in a code, 1 to 4096; `'auto'` is 8 up to H·W·C = 1024, and 64 beyond"),
    option("size", "none", "resize, antialiased: a side, such as `64`, or height and width, such as `'48x64'`"),
    option("crop", "none", "centre crop, before the resize: a side, or height and width"),
    option("objective", "`'mmd'`", "`'mmd'`"),
    option(
        "lambda",
        "`'auto'`",
        "weight of the divergence, at least 0; `'auto'` is 200 · H·W·C/784 · 7/k, where k is the number of scales for \
         `'imq'` and 1 for `'rbf'`",
    ),
    option("scales", "`[0.1, 0.2, 0.5, 1, 2, 5, 10]`", "bandwidth factors of the IMQ kernel, at most 64"),
    option("prior", "`'normal'`", "`'normal'`"),
    option("prior_scale", "`1.0`", "standard deviation of the prior, above 0"),
    option("encoder", "`'deterministic'`", "`'deterministic'`"),
    option("cost", "`'squared'`", "`'squared'`"),
    option(
        "holdout",
        "`0.1`",
        "share of the rows kept for calibration, from 0 to less than 1; with 0 there is no p-value",
    ),
    option("seed", "`0`", "an integer: initial weights, order, held-out rows, draws from the prior"),
    option("overwrite", "`false`", "whether a model of this name may be replaced"),
];

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use wae_core::TrainOptions;
    use wae_core::config::OPTION_NAMES;

    use super::*;

    #[test]
    fn every_option_is_described() {
        let mut names = OPTIONS.map(|o| o.name);
        names.sort_unstable();
        assert_eq!(names, OPTION_NAMES);
    }

    #[test]
    fn defaults_are_the_engines() {
        for option in OPTIONS.iter().filter(|o| o.default != "none") {
            let json = option.default.trim_matches('`').replace('\'', "\"");
            let value: Value = serde_json::from_str(&json).unwrap();
            let options = TrainOptions::try_from_options([(option.name, value)]).unwrap();
            assert_eq!(options, TrainOptions::default(), "{}", option.name);
        }
    }
}
