//! The table of options. [`super`] says how to add one.

use serde_json::Value;

use super::choices::widths_text;
use super::given::{Given, number, or_auto, sides_text};
use super::row::TrainOption;
use super::{
    Augmentation, BackboneChoice, Initialisation, InputChoice, LambdaSchedule, ObjectiveChoice, Preset, Schedule,
};
use crate::config::{Cost, EncoderKind, FEATURE_CHANNELS, KernelKind, PriorKind, ScoreScale, bounds, name_of};
use crate::device::Precision;
use crate::image::Preprocess;

/// Every option, those that matter most first.
pub static OPTIONS: &[TrainOption] = &[
    TrainOption {
        name: "epochs",
        documentation: "passes over the training rows, 1 to 100000",
        set: |o, g| g.count(1, 100_000).map(|v| o.epochs = v),
        json: |o| o.epochs.into(),
        ..TrainOption::CHANGEABLE
    },
    TrainOption {
        name: "batch_size",
        documentation: "images a step, 2 to 1048576; an incomplete last batch is left out",
        set: |o, g| g.count(2, 1 << 20).map(|v| o.batch_size = v),
        json: |o| o.batch_size.into(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "learning_rate",
        documentation: "Adam's initial learning rate, above 0 and at most 1 (β = 0.5, 0.999)",
        set: |o, g| g.learning_rate().map(|v| o.learning_rate = v),
        json: |o| number(o.learning_rate),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "schedule",
        documentation: "factor on the learning rate: `'step'` (½ from 60 % of the epochs on, ⅕ from 80 %), `'manual'` \
            (½ from epoch 30 on, 1/10 from 50, 1/100 from 100), `'smooth'` (geometric, down to 1/100), `'plateau'` \
            (from epoch 30 on, divided by 1.4 when the loss has not fallen for 10 epochs), `'constant'`",
        set: |o, g| g.choice(&Schedule::ALL).map(|v| o.schedule = v),
        json: |o| name_of(&Schedule::ALL, o.schedule).into(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "network",
        documentation: "`'auto'` (halves while the larger side exceeds 8 pixels and the smaller stays at 4 or more; \
            widths 32, 64, 128, 256, 256, ...), `'small'` (32, 64, 128), `'mnist'` and `'celeba'` (the paper's), or \
            the encoder's widths, such as `'32,64,128'`, which the decoder mirrors, or those of dense layers, such as \
            `'dense:256,128'`. Of features, `'auto'` is `'dense:256,128'` for vectors and maps of less than 8 places a \
            side; larger maps halve while the smaller side stays at 4 or more, with widths 64, 128, 256, 256, ...",
        set: |o, g| g.network().map(|v| o.network = v),
        json: |o| o.network.to_text().into(),
        // The used value need not be compared: the configuration has the layers that it stands for.
        config: &[
            ("/network/encoder_channels", "network"),
            ("/network/decoder_channels", "network (decoder)"),
            ("/network/dense", "network (dense)"),
        ],
        ..TrainOption::CHANGEABLE
    },
    TrainOption {
        name: "kernel",
        documentation: "a word is the kernel of the MMD: `'imq'` or `'rbf'`; a number is the side of the convolution \
            kernel, 1 to 7 (4, or 5 with `'celeba'`)",
        // One name for two things, as everywhere in the field.
        set: |o, g| match g.value {
            Value::Number(_) => g.count(1, bounds::KERNEL).map(|v| o.kernel_size = Some(v)),
            _ => g.choice(&KernelKind::ALL).map(|v| o.kernel = v),
        },
        json: |o| name_of(&KernelKind::ALL, o.kernel).into(),
        second: Some(|o| o.kernel_size.into()),
        goes_with: |objective, kernel| kernel.is_number() || objective == ObjectiveChoice::Mmd,
        config: &[("/network/kernel", "kernel (convolution)"), ("/objective/kernel", "kernel")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "latent_dim",
        documentation: "values in a code, 1 to 4096; `'auto'` is 8 up to H·W·C = 1024, and 64 beyond; of features, 64 for maps \
            and a quarter of `components` for vectors, at most 64",
        set: |o, g| g.auto(|g| g.count(1, bounds::LATENT)).map(|v| o.latent_dim = v),
        json: |o| or_auto(o.latent_dim),
        config: &[("/latent_dim", "latent_dim")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "size",
        documentation: "resize, antialiased: a side, such as `64`, or height and width, such as `'48x64'`",
        set: |o, g| Preprocess::try_new(o.crop(), Some(g.sides()?)).map(|v| o.preprocess = Some(v)),
        json: |o| o.size().map(sides_text).into(),
        config: &[("/preprocess/size", "size")],
        of_images: true,
        ..TrainOption::NEW
    },
    TrainOption {
        name: "crop",
        documentation: "centre crop, before the resize: a side, or height and width",
        set: |o, g| Preprocess::try_new(Some(g.sides()?), o.size()).map(|v| o.preprocess = Some(v)),
        json: |o| o.crop().map(sides_text).into(),
        config: &[("/preprocess/crop", "crop")],
        of_images: true,
        ..TrainOption::NEW
    },
    TrainOption {
        name: "layout",
        documentation: "the order of the axes of lists and tensors that do not name it: `'HWC'` (height, width, \
            channels) or `'CHW'`; left out, it is height, width, channels, unless a shape such as 3×224×224 denies it",
        set: |o, g| g.axis_order().map(|v| o.layout = Some(v)),
        json: |o| o.layout.map(|v| v.to_string()).into(),
        of_images: true,
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "input",
        documentation: "`'image'`, or `'features'`: floats of any range, as vectors or tensors of H×W×C, such as embeddings \
            or the columns of a table. They are whitened by the training rows; see *Features*",
        set: |o, g| g.choice(&InputChoice::ALL).map(|v| o.input = v),
        json: |o| name_of(&InputChoice::ALL, o.input).into(),
        config: &[("/input", "input")],
        of_images: true,
        ..TrainOption::NEW
    },
    TrainOption {
        name: "backbone",
        documentation: "a pretrained network, a folder or a `.safetensors` file below `wae.weights_dir`: the model is \
            trained on its features of images, and scores images. Each image is resized to the network's input size, or \
            as `size` and `crop` say; see *Features*",
        set: |o, g| g.weights().map(|v| o.backbone = Some(v)),
        json: |o| o.backbone.as_ref().map(BackboneChoice::name).into(),
        config: &[("/backbone/sha256", "backbone"), ("/backbone/size", "size"), ("/backbone/crop", "crop")],
        of_images: true,
        ..TrainOption::NEW
    },
    TrainOption {
        name: "layer",
        documentation: "the layer of `backbone`, or several joined by `+`; left out, `'layer2+layer3'` of a ResNet, \
            `'tokens'` of a ViT, `'blocks.4+blocks.6'` of an EfficientNet",
        set: |o, g| g.layer().map(|v| o.layer = Some(v)),
        json: |o| o.layer.clone().into(),
        config: &[("/backbone/layer", "layer")],
        of_images: true,
        ..TrainOption::NEW
    },
    TrainOption {
        name: "embed",
        documentation: "whether the model's file holds the weights of `backbone` up to the layer; if not, it holds \
            their SHA-256, and scoring reads them below `wae.weights_dir`",
        set: |o, g| g.boolean().map(|v| o.embed = v),
        json: |o| o.embed.into(),
        // A resumed training may have another: it is for what follows it.
        ..TrainOption::NEW
    },
    TrainOption {
        name: "components",
        documentation: "of features, the number of principal directions that the network sees, 1 to 4096; `'auto'`, the \
            default, is 100, or fewer where the channels are fewer or vary less",
        set: |o, g| g.auto(|g| g.count(1, FEATURE_CHANNELS)).map(|v| o.components = v),
        // Null for `'auto'`, as a checkpoint of before has it.
        json: |o| o.components.into(),
        of_images: true,
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "objective",
        documentation: "`'mmd'` (maximum mean discrepancy), `'gan'` (a discriminator of codes), `'aae'` (`'gan'` with \
            the squared cost), `'vae'` (KL, Gaussian decoder), `'ae'` (no divergence), `'sliced'` (sliced \
            Wasserstein), `'sinkhorn'`",
        set: |o, g| g.choice(&ObjectiveChoice::ALL).map(|v| o.objective = v),
        json: |o| name_of(&ObjectiveChoice::ALL, o.objective).into(),
        config: &[("/objective/kind", "objective")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "lambda",
        documentation: "weight of the divergence, at least 0; `'auto'` depends on the objective, the cost and the \
            image size, see *Which objective, which lambda*",
        set: |o, g| {
            let weight = |g: &Given<'_>| g.number("'auto' or a number from 0 to 1e12", 0.0..=bounds::LAMBDA);
            g.auto(weight).map(|v| o.lambda = v)
        },
        json: |o| or_auto(o.lambda.map(number)),
        goes_with: |objective, _| objective.has_divergence(),
        config: &[("/objective/lambda", "lambda")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "lambda_schedule",
        documentation: "`'constant'`, or `'adaptive'`: every 1,000 steps the mean of lambda and the step's cost / \
            \\|divergence\\|",
        set: |o, g| g.choice(&LambdaSchedule::ALL).map(|v| o.lambda_schedule = v),
        json: |o| name_of(&LambdaSchedule::ALL, o.lambda_schedule).into(),
        goes_with: |objective, _| objective.has_divergence(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "cost",
        documentation: "`'squared'`, `'l1'`, `'l2'` (the root of the squared), `'structural'` (the squared and half of \
            the structural dissimilarity): sums over pixels and channels in [0, 1]",
        set: |o, g| g.choice(&Cost::ALL).map(|v| o.cost = v),
        json: |o| o.cost.name().into(),
        config: &[("/cost", "cost")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "encoder",
        documentation: "`'deterministic'`, or `'gaussian'` (a mean and a variance; scores use the mean); `'auto'` is \
            `'gaussian'` for `'vae'`, which takes no other, and `'deterministic'` elsewhere",
        set: |o, g| g.auto(|g| g.choice(&EncoderKind::ALL)).map(|v| o.encoder = v),
        json: |o| or_auto(o.encoder.map(|kind| name_of(&EncoderKind::ALL, kind))),
        config: &[("/encoder", "encoder")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "noise",
        documentation: "standard deviation of the noise on the encoder's input in training, 0 to 1 (of features, in units of a \
            direction's deviation)",
        set: |o, g| g.number("a number from 0 to 1", 0.0..=1.0).map(|v| o.noise = v),
        json: |o| number(o.noise),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "augment",
        documentation: "random changes of the images of each training step, one or more of `'flip'` (left and right, \
            every second time), `'shift'` (by up to 1/16 of each side, the border repeated) and `'brightness'` (times \
            0.9 to 1.1), such as `'flip,shift'`: they count as normal. Not with a preset",
        set: |o, g| g.choices(&Augmentation::ALL).map(|v| o.augment = v),
        json: |o| Augmentation::to_text(&o.augment).into(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "scales",
        documentation: "bandwidth factors of the IMQ kernel, at most 64",
        set: |o, g| g.numbers().map(|v| o.scales = v),
        json: |o| o.scales.iter().copied().map(number).collect(),
        goes_with: |objective, _| objective == ObjectiveChoice::Mmd,
        config: &[("/objective/scales", "scales")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "prior",
        documentation: "`'normal'`, `'sphere'` (codes are normalised to its radius) or `'uniform'` (codes are mapped \
            to the cube by tanh)",
        set: |o, g| g.choice(&PriorKind::ALL).map(|v| o.prior.kind = v),
        json: |o| name_of(&PriorKind::ALL, o.prior.kind).into(),
        config: &[("/prior/kind", "prior")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "prior_scale",
        documentation: "the prior's standard deviation, radius, or half side; above 0",
        set: |o, g| g.number("a number from 1e-6 to 1e6", bounds::SCALE).map(|v| o.prior.scale = v),
        json: |o| number(o.prior.scale),
        config: &[("/prior/scale", "prior_scale")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "adversary_widths",
        documentation: "hidden widths of the discriminator of `'gan'`",
        set: |o, g| g.widths().map(|v| o.adversary_widths = v),
        json: |o| widths_text(&o.adversary_widths).into(),
        goes_with: |objective, _| objective.has_adversary(),
        config: &[("/objective/adversary_widths", "adversary_widths")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "adversary_learning_rate",
        documentation: "the discriminator's; `'auto'` is half of `learning_rate`",
        set: |o, g| g.auto(Given::learning_rate).map(|v| o.adversary_learning_rate = v),
        json: |o| or_auto(o.adversary_learning_rate.map(number)),
        goes_with: |objective, _| objective.has_adversary(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "log_p",
        documentation: "whether log p(z) is added to the discriminator's logit; normal prior only",
        set: |o, g| g.boolean().map(|v| o.log_p = v),
        json: |o| o.log_p.into(),
        goes_with: |objective, _| objective.has_adversary(),
        config: &[("/objective/log_p", "log_p")],
        ..TrainOption::NEW
    },
    TrainOption {
        name: "log_variance_penalty",
        documentation: "weight of the mean of Σ \\|log σ²\\|, which keeps a Gaussian encoder's variance from \
            vanishing; not for `'vae'`",
        set: |o, g| g.number("a number from 0 to 1e6", 0.0..=1e6).map(|v| o.log_variance_penalty = v),
        json: |o| number(o.log_variance_penalty),
        goes_with: |objective, _| objective != ObjectiveChoice::Vae,
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "pretrain",
        documentation: "whether the encoder is first trained to match the prior's mean and covariance",
        set: |o, g| g.boolean().map(|v| o.pretrain = v),
        json: |o| o.pretrain.into(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "preset",
        documentation: "`'paper-mnist'` or `'paper-celeba'`: every option as in the paper's experiment, initial \
            weights too; options that are given hold beside it",
        // The other options of a preset are those that it starts from, in `TrainOptions::base`.
        set: |o, g| {
            o.preset = Some(g.choice(&Preset::ALL)?);
            o.initialisation = Initialisation::Normal;
            Ok(())
        },
        json: |o| o.preset.map(|preset| name_of(&Preset::ALL, preset)).into(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "score_scales",
        documentation: "the scales at which the anomaly map looks for strange places, up to 8 different ones: whole numbers \
            from 1 to 1024, by which the side is divided to give the width of a smoothing, and all places together by their `mean` or, as \
            `whole`, their 4-norm; `'auto'` is `'16,mean,whole'`, of features `'16'`, see *Which score*",
        set: |o, g| g.auto(Given::score_scales).map(|v| o.score_scales = v),
        json: |o| or_auto(o.score_scales.as_deref().map(ScoreScale::text)),
        // The configuration holds them. A resumed training may have others: they are for what follows it.
        ..TrainOption::NEW
    },
    TrainOption {
        name: "holdout",
        documentation: "share of the rows kept for calibration, from 0 to less than 1; with 0 there is no p-value",
        set: |o, g| g.number("a number from 0 to less than 1", 0.0..1.0).map(|v| o.holdout = v),
        json: |o| number(o.holdout),
        of_images: true,
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "seed",
        documentation: "an integer: initial weights, order, held-out rows, draws from the prior",
        set: |o, g| g.integer(0, u64::MAX).map(|v| o.seed = v),
        json: |o| o.seed.into(),
        of_images: true,
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "init",
        documentation: "a model whose weights training begins with; its images, `latent_dim`, `network`, convolution \
            kernel and `encoder` have to be those of the options",
        set: |o, g| g.model().map(|v| o.init = Some(v)),
        json: |o| o.init.clone().into(),
        ..TrainOption::FIXED
    },
    TrainOption {
        name: "checkpoint_every",
        documentation: "epochs after which a checkpoint is written, 0 for never; or a time, such as `'10 minutes'`: \
            after the first epoch that ends so long after the last checkpoint",
        set: |o, g| g.interval().map(|v| o.checkpoint_every = v),
        json: |o| o.checkpoint_every.to_json(),
        ..TrainOption::CHANGEABLE
    },
    // The two about files leave no trace in a model: a training that was resumed gives the file of one that was not.
    TrainOption {
        name: "resume",
        documentation: "whether a training of this name that was stopped goes on from its last checkpoint; without one \
            it begins anew. See *Interruption*",
        set: |o, g| g.boolean().map(|v| o.resume = v),
        json: |o| o.resume.into(),
        ..TrainOption::NEW
    },
    TrainOption {
        name: "overwrite",
        documentation: "whether a model of this name may be replaced, and the checkpoint of a training that was \
            stopped be dropped (without `resume => true`)",
        set: |o, g| g.boolean().map(|v| o.overwrite = v),
        json: |o| o.overwrite.into(),
        ..TrainOption::NEW
    },
    TrainOption {
        name: "device",
        documentation: "`'auto'`, `'cpu'`, `'cuda'`, `'cuda:N'`, `'metal'` or `'metal:N'`, of the kinds that are built \
            in; the session's `wae.device` where it is left out",
        set: |o, g| g.device().map(|v| o.device = Some(v)),
        json: |o| o.device.map(|device| device.to_string()).into(),
        ..TrainOption::CHANGEABLE
    },
    TrainOption {
        name: "precision",
        documentation: "what a GPU computes in, `'f32'`, `'tf32'` or `'bf16'`; the session's `wae.precision` where it \
            is left out. The processor trains in f32",
        set: |o, g| g.choice(&Precision::ALL).map(|v| o.precision = Some(v)),
        json: |o| o.precision.map(Precision::name).into(),
        ..TrainOption::CHANGEABLE
    },
];
