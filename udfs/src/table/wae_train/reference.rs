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
pub(crate) const OPTIONS: [OptionText; 32] = [
    option("epochs", "`20`", "passes over the training rows, 1 to 100000"),
    option("batch_size", "`100`", "images a step, 2 to 1048576; an incomplete last batch is left out"),
    option("learning_rate", "`0.001`", "Adam's initial learning rate, above 0 and at most 1 (β = 0.5, 0.999)"),
    option(
        "schedule",
        "`'step'`",
        "factor on the learning rate: `'step'` (½ from 60 % of the epochs on, ⅕ from 80 %), `'manual'` (½ from epoch \
         30 on, 1/10 from 50, 1/100 from 100), `'smooth'` (geometric, down to 1/100), `'plateau'` (from epoch 30 on, \
         divided by 1.4 when the loss has not fallen for 10 epochs), `'constant'`",
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
    option(
        "objective",
        "`'mmd'`",
        "`'mmd'` (maximum mean discrepancy), `'gan'` (a discriminator of codes), `'aae'` (`'gan'` with the squared \
         cost), `'vae'` (KL, Gaussian decoder), `'ae'` (no divergence), `'sliced'` (sliced Wasserstein), `'sinkhorn'`",
    ),
    option(
        "lambda",
        "`'auto'`",
        "weight of the divergence, at least 0; `'auto'` depends on the objective, the cost and the image size, see \
         *Which objective, which lambda*",
    ),
    option(
        "lambda_schedule",
        "`'constant'`",
        "`'constant'`, or `'adaptive'`: every 1,000 steps the mean of lambda and the step's cost / \\|divergence\\|",
    ),
    option(
        "cost",
        "`'squared'`",
        "`'squared'`, `'l1'`, `'l2'` (the root of the squared), `'structural'` (the squared and half of the \
         structural dissimilarity): sums over pixels and channels in [0, 1]",
    ),
    option(
        "encoder",
        "`'auto'`",
        "`'deterministic'`, or `'gaussian'` (a mean and a variance; scores use the mean); `'auto'` is `'gaussian'` for \
         `'vae'`, which takes no other, and `'deterministic'` elsewhere",
    ),
    option("noise", "`0.0`", "standard deviation of the noise on the encoder's input in training, 0 to 1"),
    option("scales", "`[0.1, 0.2, 0.5, 1, 2, 5, 10]`", "bandwidth factors of the IMQ kernel, at most 64"),
    option(
        "prior",
        "`'normal'`",
        "`'normal'`, `'sphere'` (codes are normalised to its radius) or `'uniform'` (codes are mapped to the cube by tanh)",
    ),
    option("prior_scale", "`1.0`", "the prior's standard deviation, radius, or half side; above 0"),
    option("adversary_widths", "`'512,512,512,512'`", "hidden widths of the discriminator of `'gan'`"),
    option("adversary_learning_rate", "`'auto'`", "the discriminator's; `'auto'` is half of `learning_rate`"),
    option("log_p", "`false`", "whether log p(z) is added to the discriminator's logit; normal prior only"),
    option(
        "log_variance_penalty",
        "`0.1`",
        "weight of the mean of Σ \\|log σ²\\|, which keeps a Gaussian encoder's variance from vanishing; not for `'vae'`",
    ),
    option("pretrain", "`false`", "whether the encoder is first trained to match the prior's mean and covariance"),
    option(
        "preset",
        "none",
        "`'paper-mnist'` or `'paper-celeba'`: every option as in the paper's experiment, initial weights too; options \
         that are given hold beside it",
    ),
    option(
        "holdout",
        "`0.1`",
        "share of the rows kept for calibration, from 0 to less than 1; with 0 there is no p-value",
    ),
    option("seed", "`0`", "an integer: initial weights, order, held-out rows, draws from the prior"),
    option(
        "init",
        "none",
        "a model whose weights training begins with; its images, `latent_dim`, `network`, convolution kernel and `encoder` have \
         to be those of the options",
    ),
    option(
        "checkpoint_every",
        "`0`",
        "epochs after which a checkpoint is written, 0 for never; or a time, such as `'10 minutes'`: after the first epoch \
         that ends so long after the last checkpoint",
    ),
    option(
        "resume",
        "`false`",
        "whether a training of this name that was stopped goes on from its last checkpoint; without one it begins anew. See \
         *Interruption*",
    ),
    option(
        "overwrite",
        "`false`",
        "whether a model of this name may be replaced, and the checkpoint of a training that was stopped be dropped \
         (without `resume => true`)",
    ),
    option(
        "device",
        "none",
        "`'auto'`, `'cpu'`, `'cuda'`, `'cuda:N'`, `'metal'` or `'metal:N'`, of the kinds that are built in; the session's \
         `wae.device` where it is left out",
    ),
    option(
        "precision",
        "none",
        "what a GPU computes in, `'f32'`, `'tf32'` or `'bf16'`; the session's `wae.precision` where it is left out. The \
         processor trains in f32",
    ),
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
            // Some say nothing but beside the objective that they belong to.
            let adversarial = option.name.starts_with("adversary") || option.name == "log_p";
            let objective = ("objective", Value::from(if adversarial { "gan" } else { "mmd" }));
            let given = [objective, (option.name, value)].into_iter().skip(usize::from(option.name == "objective"));
            let mut options = TrainOptions::try_from_options(given).unwrap();
            options.objective = TrainOptions::default().objective;
            assert_eq!(options, TrainOptions::default(), "{}", option.name);
        }
    }
}
