//! Options by name and as fields: every row of the table, then what a row by itself cannot show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};

use super::given::Given;
use super::*;
use crate::config::{Convolutions, Network};
use crate::image::ImageShape;

/// Puts a value into a field that its option refuses.
type Spoil = Option<fn(&mut TrainOptions)>;

/// For each row: a value that is allowed and not the default, one that is refused, and the same as a field where the
/// field's type can hold one. A row of two fields stands here twice.
const SAMPLES: &[(&str, &str, &str, Spoil)] = &[
    ("epochs", "3", "0", Some(|o| o.epochs = 0)),
    ("batch_size", "7", "1", Some(|o| o.batch_size = 1)),
    ("learning_rate", "0.01", "0", Some(|o| o.learning_rate = f64::NAN)),
    ("schedule", r#""plateau""#, r#""linear""#, None),
    ("network", r#""8,16""#, r#""8,0""#, Some(|o| o.network = NetworkChoice::Widths(vec![]))),
    ("kernel", r#""rbf""#, r#""laplace""#, None),
    ("kernel", "3", "8", Some(|o| o.kernel_size = Some(0))),
    ("latent_dim", "5", "0", Some(|o| o.latent_dim = Some(4097))),
    ("size", r#""48x64""#, "0", None),
    ("crop", "140", r#""4x""#, None),
    ("layout", r#""CHW""#, r#""WHC""#, None),
    ("score_scales", r#""16,mean,whole""#, r#""8,half""#, Some(|o| o.score_scales = Some(vec![]))),
    ("input", r#""features""#, r#""vector""#, None),
    ("backbone", r#""net""#, r#""""#, Some(|o| o.backbone = Some(BackboneChoice::named("")))),
    ("layer", r#""layer2+layer3""#, r#"" ""#, Some(|o| o.layer = Some(String::new()))),
    ("embed", "false", r#""no""#, None),
    ("components", "12", "4097", Some(|o| o.components = Some(0))),
    ("objective", r#""gan""#, r#""wgan""#, None),
    ("lambda", "3.5", "-1", Some(|o| o.lambda = Some(f64::INFINITY))),
    ("lambda_schedule", r#""adaptive""#, "1", None),
    ("cost", r#""l1""#, r#""l3""#, None),
    ("encoder", r#""gaussian""#, r#""random""#, None),
    ("noise", "0.1", "1.5", Some(|o| o.noise = -0.1)),
    ("augment", r#""shift, flip""#, r#""flip,flip""#, None),
    ("scales", "[0.5, 2]", "[]", Some(|o| o.scales = vec![1.0, f64::NAN])),
    ("prior", r#""sphere""#, r#""cauchy""#, None),
    ("prior_scale", "2", "0", Some(|o| o.prior.scale = f64::NAN)),
    ("adversary_widths", r#""16,8""#, r#""16,0""#, Some(|o| o.adversary_widths = vec![0])),
    ("adversary_learning_rate", "0.001", "2", Some(|o| o.adversary_learning_rate = Some(0.0))),
    ("log_p", "true", "1", None),
    ("log_variance_penalty", "0.2", "-1", Some(|o| o.log_variance_penalty = 1e7)),
    ("pretrain", "true", r#""yes""#, None),
    ("preset", r#""paper-mnist""#, r#""mnist""#, None),
    ("holdout", "0.2", "1", Some(|o| o.holdout = 1.0)),
    ("seed", "9", "-1", None),
    ("init", r#""m""#, r#""""#, Some(|o| o.init = Some(String::new()))),
    (
        "checkpoint_every",
        r#""10m""#,
        r#""often""#,
        Some(|o| o.checkpoint_every = CheckpointInterval::Time(Duration::ZERO)),
    ),
    ("resume", "true", "0", None),
    ("overwrite", "true", "0", None),
    ("device", r#""cpu""#, r#""tpu""#, None),
    ("precision", r#""bf16""#, r#""f16""#, None),
];

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn set(options: &mut TrainOptions, name: &str, text: &str) {
    let option = TrainOption::find(name).unwrap();
    (option.set)(options, &Given::new(name, &value(text))).unwrap();
}

/// The option that another goes with: the kind of input, or the first objective that has a use for it.
fn objective_of(name: &str, value: &Value) -> Option<(&'static str, Value)> {
    if name == "components" {
        return Some(("input", json!("features")));
    }
    if name == "layer" || name == "embed" {
        return Some(("backbone", json!("net")));
    }
    let option = TrainOption::find(name).unwrap();
    let (objective, _) = ObjectiveChoice::ALL.iter().find(|(_, choice)| (option.goes_with)(*choice, value)).unwrap();
    (name != "objective").then(|| ("objective", json!(objective)))
}

/// Each field by its name, as text, from the lines of `Debug`.
fn fields(options: &TrainOptions) -> BTreeMap<String, String> {
    let text = format!("{options:#?}");
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().skip(1) {
        let start = line.strip_prefix("    ").filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
        if let Some((field, _)) = start.and_then(|line| line.split_once(": ")) {
            field.clone_into(&mut name);
        }
        fields.entry(name.clone()).or_default().push_str(line);
    }
    fields
}

#[test]
fn every_row_has_samples_and_a_name_of_its_own() {
    let sampled: BTreeSet<&str> = SAMPLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(OPTION_NAMES.as_slice(), sampled.into_iter().collect::<Vec<_>>());
    assert_eq!(OPTION_NAMES.len(), OPTIONS.len());
    for option in OPTIONS {
        let samples = SAMPLES.iter().filter(|(name, ..)| *name == option.name).count();
        assert_eq!(samples, option.fields().count(), "{}", option.name);
    }
}

#[test]
fn every_field_is_reached_by_exactly_one_row() {
    // Two fields have two parts, and each part a row of its own.
    const PARTS: [(&str, [&str; 2]); 2] = [("preprocess", ["crop", "size"]), ("prior", ["prior", "prior_scale"])];
    let before = fields(&TrainOptions::default());
    assert!(before.contains_key("epochs") && before.contains_key("precision"), "{before:?}");
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = before.keys().map(|f| (f.as_str(), BTreeSet::new())).collect();
    for (name, good, ..) in SAMPLES {
        let mut options = TrainOptions::default();
        set(&mut options, name, good);
        let after = fields(&options);
        let changed: Vec<_> = before.keys().filter(|field| after[*field] != before[*field]).collect();
        assert!(!changed.is_empty(), "{name}");
        for field in changed {
            reached.get_mut(field.as_str()).unwrap().insert(name);
        }
    }
    for (field, rows) in reached {
        let rows: Vec<&str> = rows.into_iter().collect();
        match PARTS.iter().find(|(name, _)| *name == field) {
            Some((_, parts)) => assert_eq!(rows, parts, "{field}"),
            None => assert_eq!(rows.len(), 1, "{field} is reached by {rows:?}"),
        }
    }
    for (_, parts) in PARTS {
        let good = parts.map(|name| (name, SAMPLES.iter().find(|(sample, ..)| *sample == name).unwrap().1));
        let mut there = TrainOptions::default();
        good.iter().for_each(|(name, good)| set(&mut there, name, good));
        let mut back = TrainOptions::default();
        good.iter().rev().for_each(|(name, good)| set(&mut back, name, good));
        assert_eq!(there, back, "each leaves the other part as it is");
    }
}

#[test]
fn every_row_takes_a_good_value_and_refuses_a_bad_one() {
    for (name, good, bad, spoil) in SAMPLES {
        let refusal = format!("option '{name}' must be ");
        let beside = objective_of(name, &value(good));
        let read = |text: &str| {
            let given = beside.iter().cloned().chain([(*name, value(text))]);
            TrainOptions::try_from_options(given)
        };
        let options = read(good).unwrap();
        assert_ne!(options, TrainOptions::try_from_options(beside.clone()).unwrap(), "{name}");
        options.validate().unwrap();
        let error = read(bad).unwrap_err().to_string();
        assert!(error.starts_with(&refusal), "{error}");
        if let Some(spoil) = spoil {
            let mut options = options.clone();
            spoil(&mut options);
            let error = options.validate().unwrap_err().to_string();
            assert!(error.starts_with(&refusal), "{error}");
        }
    }
}

/// The inverse of `set`, for values in files and for `validate`.
#[test]
fn the_json_of_a_field_reads_back() {
    for (name, good, ..) in SAMPLES {
        let mut options = TrainOptions::default();
        set(&mut options, name, good);
        let mut read = TrainOptions::default();
        for json in TrainOption::find(name).unwrap().fields() {
            let value = json(&options);
            if !value.is_null() {
                set(&mut read, name, &value.to_string());
            }
        }
        assert_eq!(read, options, "{name}");
    }
}

#[rstest]
#[case::not_a_number(|o: &mut TrainOptions| o.learning_rate = f64::NAN, "option 'learning_rate' must be a number above 0 and at most 1, got NaN")]
#[case::infinite(|o: &mut TrainOptions| o.prior.scale = f64::INFINITY, "option 'prior_scale' must be a number from 1e-6 to 1e6, got inf")]
#[case::epochs(|o: &mut TrainOptions| o.epochs = 0, "option 'epochs' must be an integer between 1 and 100000, got 0")]
#[case::scales(|o: &mut TrainOptions| o.scales = vec![-1.0], "option 'scales' must be a list of numbers from 1e-6 to 1e6, such as '0.5, 1, 2', got [-1.0]")]
#[case::widths(|o: &mut TrainOptions| o.network = NetworkChoice::Widths(vec![8, 0]), "option 'network' must be 'auto', 'small', 'mnist', 'celeba', widths such as '32,64,128', or dense layers such as 'dense:256,128', got \"8,0\"")]
#[case::of_no_use(|o: &mut TrainOptions| { o.objective = ObjectiveChoice::Gan; o.scales = vec![1.0] }, "option 'scales' does not go with objective 'gan'")]
#[case::kernel(|o: &mut TrainOptions| { o.objective = ObjectiveChoice::Vae; o.kernel = KernelKind::Rbf }, "option 'kernel' does not go with objective 'vae'")]
#[case::together(|o: &mut TrainOptions| { o.objective = ObjectiveChoice::Aae; o.cost = Cost::L1 }, "objective 'aae' is 'gan' with cost 'squared', got cost 'l1'")]
fn a_field_is_refused_as_its_option_is(#[case] spoil: fn(&mut TrainOptions), #[case] message: &str) {
    let mut options = TrainOptions::default();
    spoil(&mut options);
    assert_eq!(options.validate().unwrap_err().to_string(), message);
}

/// A preset sets fields that its objective has no use for, and so does `objective` by itself.
#[test]
fn fields_that_nobody_gave_are_accepted() {
    for (objective, _) in ObjectiveChoice::ALL {
        for preset in [None, Some("paper-mnist"), Some("paper-celeba")] {
            let preset = preset.map(|name| ("preset", json!(name)));
            let given = [("objective", json!(objective))].into_iter().chain(preset);
            TrainOptions::try_from_options(given).unwrap().validate().unwrap();
        }
    }
}

#[rstest]
#[case("epochs", Some("20"))]
#[case("noise", Some("0.0"))]
#[case("kernel", Some("'imq'"))]
#[case("scales", Some("[0.1, 0.2, 0.5, 1, 2, 5, 10]"))]
#[case("adversary_widths", Some("'512,512,512,512'"))]
#[case("log_p", Some("false"))]
#[case("preset", None)]
fn defaults_are_shown_as_sql_writes_them(#[case] name: &str, #[case] expected: Option<&str>) {
    assert_eq!(TrainOption::find(name).unwrap().default_sql().as_deref(), expected);
}

#[test]
fn defaults_that_are_shown_are_those_of_the_fields() {
    for option in OPTIONS {
        let Some(text) = option.default_sql() else { continue };
        let value = value(&text.replace('\'', "\""));
        let beside = objective_of(option.name, &value);
        let given = beside.clone().into_iter().chain([(option.name, value)]);
        let expected = TrainOptions::try_from_options(beside).unwrap();
        assert_eq!(TrainOptions::try_from_options(given).unwrap(), expected, "{}", option.name);
    }
}

/// The names in the JSON of a model file.
#[test]
fn used_options_are_those_that_the_configuration_does_not_hold() {
    let used = TrainOptions::default().used();
    let expected = json!({
        "epochs": 20, "batch_size": 100, "learning_rate": 0.001, "adversary_learning_rate": 0.0005, "schedule": "step",
        "lambda_schedule": "constant", "network": "auto", "log_variance_penalty": 0.1, "noise": 0.0, "augment": null, "pretrain": false,
        "preset": null, "layout": null, "components": null, "init": null, "checkpoint_every": 0, "holdout": 0.1, "seed": 0, "device": "auto",
        "precision": "f32"
    });
    assert_eq!(used, expected);
}

#[rstest]
#[case("epochs", json!(0), "option 'epochs' must be an integer between 1 and 100000, got 0")]
#[case("epochs", json!(2.5), "option 'epochs' must be an integer between 1 and 100000, got 2.5")]
#[case("schedule", json!("linear"), "option 'schedule' must be 'step' or 'manual' or 'smooth' or 'plateau' or 'constant', got \"linear\"")]
#[case("holdout", json!(1.0), "option 'holdout' must be a number from 0 to less than 1, got 1.0")]
#[case("network", json!("32,0"), "option 'network' must be 'auto', 'small', 'mnist', 'celeba', widths such as '32,64,128', or dense layers such as 'dense:256,128', got \"32,0\"")]
#[case("kernel", json!(8), "option 'kernel' must be an integer between 1 and 7, got 8")]
#[case("kernel", json!("laplace"), "option 'kernel' must be 'imq' or 'rbf', got \"laplace\"")]
#[case("size", json!("0x4"), "option 'size' must be a side such as 64, or height and width such as '48x64', got \"0x4\"")]
#[case("scales", json!([1, -1]), "option 'scales' must be a list of numbers from 1e-6 to 1e6, such as '0.5, 1, 2', got [1,-1]")]
#[case("checkpoint_every", json!("10"), "option 'checkpoint_every' must be a number of epochs from 0 to 100000, or a time of a second or more such as '10 minutes', got \"10\"")]
#[case("checkpoint_every", json!("0 minutes"), "option 'checkpoint_every' must be a number of epochs from 0 to 100000, or a time of a second or more such as '10 minutes', got \"0 minutes\"")]
#[case("init", json!(""), "option 'init' must be the name of a model, got \"\"")]
#[case("augment", json!("flip,turn"), "option 'augment' must be one or more of 'flip', 'shift', 'brightness', each once, such as 'flip,shift,brightness', got \"flip,turn\"")]
#[case("augment", json!(""), "option 'augment' must be one or more of 'flip', 'shift', 'brightness', each once, such as 'flip,shift,brightness', got \"\"")]
#[case("overwrite", json!("yes"), "option 'overwrite' must be true or false, got \"yes\"")]
#[case("lambda", json!(-1), "option 'lambda' must be 'auto' or a number from 0 to 1e12, got -1")]
fn a_bad_value_says_what_was_expected(#[case] name: &str, #[case] value: Value, #[case] message: &str) {
    assert_eq!(TrainOptions::try_from_options([(name, value)]).unwrap_err().to_string(), message);
}

#[test]
fn every_listed_option_is_known() {
    for name in OPTION_NAMES.iter() {
        let error = TrainOptions::try_from_options([(name, json!({}))]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("option '{name}' must be ")), "{error}");
    }
    assert!(OPTION_NAMES.is_sorted());
}

#[test]
fn kernel_is_the_convolutions_or_the_divergences() {
    let options = TrainOptions::try_from_options([("kernel", json!("rbf"))]).unwrap();
    assert_eq!((options.kernel, options.kernel_size), (KernelKind::Rbf, None));
    let options = TrainOptions::try_from_options([("kernel", json!(3))]).unwrap();
    assert_eq!((options.kernel, options.kernel_size), (KernelKind::Imq, Some(3)));
}

#[rstest]
#[case("network", json!([8, 16]), json!("8,16"))]
#[case("size", json!([48, 64]), json!("48x64"))]
#[case("augment", json!(["flip", "shift"]), json!("flip,shift"))]
#[case("score_scales", json!([16, "whole"]), json!("16,whole"))]
fn a_list_is_read_as_the_text_of_its_items(#[case] name: &str, #[case] list: Value, #[case] text: Value) {
    let read = |value| TrainOptions::try_from_options([(name, value)]).unwrap();
    assert_eq!(read(list), read(text));
}

#[rstest]
#[case("epoch", Some("epochs"))]
#[case("LatentDim", Some("latent_dim"))]
#[case("lernign_rate", Some("learning_rate"))]
#[case("lr", None)]
#[case("banana", None)]
fn an_unknown_name_is_answered_with_a_near_one(#[case] given: &str, #[case] near: Option<&str>) {
    let error = TrainOption::find(given).unwrap_err().to_string();
    let question = near.map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
    assert!(error.starts_with(&format!("unknown option '{given}', expected one of adversary_learning_rate, ")));
    assert_eq!(error.contains("did you mean"), near.is_some(), "{error}");
    assert!(error.ends_with(&question), "{error}");
}

#[rstest]
#[case(json!(0), CheckpointInterval::Never)]
#[case(json!(3), CheckpointInterval::Epochs(3))]
#[case(json!("10 minutes"), CheckpointInterval::Time(Duration::from_secs(600)))]
#[case(json!("1h 30m"), CheckpointInterval::Time(Duration::from_secs(5400)))]
fn checkpoints_come_by_epochs_or_by_time(#[case] value: Value, #[case] expected: CheckpointInterval) {
    let options = TrainOptions::try_from_options([("checkpoint_every", value)]).unwrap();
    assert_eq!(options.checkpoint_every, expected);
    // A model file holds a value that the option takes.
    let used = options.used()["checkpoint_every"].clone();
    assert_eq!(TrainOptions::try_from_options([("checkpoint_every", used)]).unwrap(), options);
}

#[test]
fn defaults_follow_the_image() {
    let config = TrainOptions::default().config(ImageShape::new(28, 28, 1)).unwrap();
    assert_eq!((config.latent_dim(), config.objective().lambda()), (8, 200.0));
    let config = TrainOptions::default().config(ImageShape::new(64, 64, 3)).unwrap();
    assert_eq!(config.latent_dim(), 64);
}

#[rstest]
#[case::gan(json!({"objective": "gan", "scales": "1"}), "option 'scales' does not go with objective 'gan'")]
#[case::kernel(json!({"objective": "vae", "kernel": "rbf"}), "option 'kernel' does not go with objective 'vae'")]
#[case::ae(json!({"objective": "ae", "lambda": 1}), "option 'lambda' does not go with objective 'ae'")]
#[case::log_p(json!({"log_p": true}), "option 'log_p' does not go with objective 'mmd'")]
#[case::penalty(json!({"objective": "vae", "log_variance_penalty": 1}), "option 'log_variance_penalty' does not go with objective 'vae'")]
#[case::unknown(json!({"objective": "wgan"}), "option 'objective' must be 'mmd' or 'gan' or 'aae' or 'vae' or 'ae' or 'sliced' or 'sinkhorn', got \"wgan\"")]
fn options_that_do_not_go_together(#[case] options: Value, #[case] message: &str) {
    let Value::Object(options) = options else { panic!("not an object") };
    assert_eq!(TrainOptions::try_from_options(options).unwrap_err().to_string(), message);
}

#[rstest]
#[case::aae(json!({"objective": "aae", "cost": "l1"}), "objective 'aae' is 'gan' with cost 'squared', got cost 'l1'")]
#[case::log_p(json!({"objective": "gan", "log_p": true, "prior": "sphere"}), "log_p goes with prior 'normal' only")]
#[case::augment(json!({"preset": "paper-mnist", "augment": "flip"}), "option 'augment' does not go with preset 'paper-mnist'")]
#[case::sinkhorn(json!({"objective": "sinkhorn", "batch_size": 5000}), "objective 'sinkhorn' takes a batch_size of at most 4096, got 5000")]
fn options_that_no_model_has(#[case] options: Value, #[case] message: &str) {
    let Value::Object(options) = options else { panic!("not an object") };
    assert_eq!(TrainOptions::try_from_options(options).unwrap_err().to_string(), message);
}

#[rstest]
#[case::layer(json!({"layer": "tokens"}), "option 'layer' goes with backbone only: it names a layer of its network")]
#[case::embed(json!({"embed": true}), "option 'embed' goes with backbone only: it is for the weights of its network")]
#[case::image(json!({"backbone": "net", "input": "image"}), "option 'input' is 'image', but the model of a backbone is trained on features: leave input out")]
#[case::augment_of_backbone(json!({"backbone": "net", "augment": "flip"}), "option 'augment' does not go with backbone: it is for images")]
#[case::preset_of_backbone(json!({"backbone": "net", "preset": "paper-mnist"}), "option 'preset' does not go with backbone: it is an experiment on images")]
#[case::components(json!({"components": 10}), "option 'components' goes with backbone and with input => 'features' only")]
#[case::size(json!({"input": "features", "size": 32}), "option 'size' does not go with input => 'features': it is for images")]
#[case::crop(json!({"crop": 32, "input": "features"}), "option 'crop' does not go with input => 'features': it is for images")]
#[case::augment(json!({"input": "features", "augment": "flip"}), "option 'augment' does not go with input => 'features': it is for images")]
#[case::preset(json!({"input": "features", "preset": "paper-mnist"}), "option 'preset' does not go with input => 'features': it is an experiment on images")]
#[case::cost(json!({"input": "features", "cost": "structural"}), "input 'features' takes cost 'squared', got cost 'structural'")]
fn options_that_the_input_has_no_use_for(#[case] options: Value, #[case] message: &str) {
    let Value::Object(options) = options else { panic!("not an object") };
    assert_eq!(TrainOptions::try_from_options(options).unwrap_err().to_string(), message);
}

#[test]
fn options_that_go_with_a_backbone() {
    let given =
        json!({"backbone": "net", "input": "features", "size": 224, "crop": 300, "components": 4, "embed": false});
    let Value::Object(given) = given else { panic!("not an object") };
    let options = TrainOptions::try_from_options(given).unwrap();
    options.validate().unwrap();
    let error = options.config(ImageShape::new(28, 28, 3)).unwrap_err().to_string();
    assert_eq!(error, "option 'backbone' is 'net', which has not been read: see BackboneChoice::open and with_network");
    let embed = TrainOptions { embed: false, ..TrainOptions::default() };
    assert!(embed.validate().unwrap_err().to_string().starts_with("option 'embed' goes with backbone only"));
}

/// λ is 20·H·W·k/784 for mmd.
#[rstest]
#[case::vector((1, 1, 784), json!({}), 100, 25, Network::Dense(vec![256, 128]), 20.0 * 100.0 / 784.0)]
#[case::few((1, 1, 5), json!({}), 5, 2, Network::Dense(vec![256, 128]), 20.0 * 5.0 / 784.0)]
#[case::one((1, 1, 1), json!({}), 1, 1, Network::Dense(vec![256, 128]), 20.0 / 784.0)]
#[case::many((1, 1, 4096), json!({"components": 400}), 400, 64, Network::Dense(vec![256, 128]), 20.0 * 400.0 / 784.0)]
#[case::map((14, 14, 112), json!({}), 100, 64, Convolutions::mirrored(vec![64, 128], 4).into(), 20.0 * 25.0)]
#[case::small_map((4, 4, 3), json!({}), 3, 64, Network::Dense(vec![256, 128]), 20.0 * 48.0 / 784.0)]
#[case::dense((8, 8, 3), json!({"network": "dense:16"}), 3, 64, Network::Dense(vec![16]), 20.0 * 192.0 / 784.0)]
#[case::vae((1, 1, 8), json!({"objective": "vae"}), 8, 2, Network::Dense(vec![256, 128]), 0.1)]
fn defaults_follow_the_features(
    #[case] (h, w, c): (usize, usize, usize),
    #[case] beside: Value,
    #[case] components: usize,
    #[case] latent_dim: usize,
    #[case] network: Network,
    #[case] lambda: f64,
) {
    let Value::Object(mut options) = beside else { panic!("not an object") };
    options.insert("input".to_owned(), json!("features"));
    let config = TrainOptions::try_from_options(options).unwrap().config(ImageShape::new(h, w, c)).unwrap();
    assert_eq!((config.source(), config.image()), (ImageShape::new(h, w, c), ImageShape::new(h, w, components)));
    assert_eq!((config.latent_dim(), config.network()), (latent_dim, &network));
    assert!((config.objective().lambda() - lambda).abs() < 1e-12, "{}", config.objective().lambda());
}

/// In whatever order they are named, changes are stored in one.
#[test]
fn changes_of_images_are_a_list() {
    let options = TrainOptions::try_from_options([("augment", json!("Shift, flip"))]).unwrap();
    assert_eq!(options.augment, [Augmentation::Flip, Augmentation::Shift]);
    assert_eq!(options.used()["augment"], "flip,shift");
    let in_code = TrainOptions { augment: vec![Augmentation::Shift, Augmentation::Flip], ..TrainOptions::default() };
    assert_eq!(in_code.used()["augment"], "flip,shift");
}

#[test]
fn a_shift_of_no_pixel_is_refused() {
    let options = TrainOptions { augment: vec![Augmentation::Shift], ..TrainOptions::default() };
    options.config(ImageShape::new(8, 16, 1)).unwrap();
    let error = options.config(ImageShape::new(8, 15, 1)).unwrap_err().to_string();
    assert_eq!(
        error,
        "option 'augment' has 'shift', which moves by up to 1/16 of a side: expected a side of 16 pixels or more, got [8, 15, 1]"
    );
}

#[test]
fn vae_implies_a_gaussian_encoder() {
    let image = ImageShape::new(28, 28, 1);
    let options = TrainOptions::try_from_options([("objective", json!("vae"))]).unwrap();
    assert_eq!(options.config(image).unwrap().encoder(), EncoderKind::Gaussian);
    let given = [("objective", json!("vae")), ("encoder", json!("deterministic"))];
    let error = TrainOptions::try_from_options(given).unwrap_err().to_string();
    assert_eq!(error, "objective 'vae' takes encoder 'gaussian', got 'deterministic'");
    assert_eq!(TrainOptions::default().config(image).unwrap().encoder(), EncoderKind::Deterministic);
}

/// The paper's λ in this crate's units: 10/0.05, 100/0.05/4, 1/0.05/4 (reference/wae-facts).
#[rstest]
#[case("paper-mnist", "mmd", 200.0, 1e-3)]
#[case("paper-mnist", "gan", 200.0, 1e-3)]
#[case("paper-celeba", "mmd", 500.0, 1e-3)]
#[case("paper-celeba", "gan", 5.0, 3e-4)]
fn presets(#[case] preset: &str, #[case] objective: &str, #[case] lambda: f64, #[case] rate: f64) {
    let given = [("preset", json!(preset)), ("objective", json!(objective))];
    let options = TrainOptions::try_from_options(given).unwrap();
    assert_eq!((options.lambda, options.learning_rate), (Some(lambda), rate));
    let (noise, log_p) = if preset == "paper-mnist" { (0.01, false) } else { (0.005, objective == "gan") };
    assert_eq!((options.noise, options.log_p), (noise, log_p));
    assert_eq!((options.pretrain, options.initialisation), (true, Initialisation::Normal));
}

/// Options that are given beside a preset hold, whichever comes first.
#[test]
fn options_override_a_preset() {
    let given = [("epochs", json!(2)), ("preset", json!("paper-mnist")), ("noise", json!(0))];
    let options = TrainOptions::try_from_options(given).unwrap();
    assert_eq!((options.epochs, options.noise, options.latent_dim), (2, 0.0, Some(8)));
    // The other half of the preset's preprocessing stays, and λ follows the cost that is given.
    let given = [("preset", json!("paper-celeba")), ("size", json!(32)), ("cost", json!("l1"))];
    let options = TrainOptions::try_from_options(given).unwrap();
    assert_eq!(options.preprocess, Some(Preprocess::try_new(Some((140, 140)), Some((32, 32))).unwrap()));
    assert_eq!(options.lambda, None);
}
