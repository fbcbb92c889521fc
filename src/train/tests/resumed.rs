//! A training that is stopped and resumed equals one that never stopped, bit for bit, except for clock values.

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::checkpoint::{Checkpoint, ModelFile, TrainingInfo};

fn options(given: &GivenOptions) -> TrainOptions {
    TrainOptions::try_from_options(given.iter().cloned()).unwrap()
}

fn after(given: &GivenOptions, epochs: usize) -> Trainer {
    let mut trainer = trainer(given);
    for _ in 0..epochs {
        trainer.epochs().next().unwrap().unwrap();
    }
    trainer
}

/// Through the bytes of a file.
fn stored(trainer: &Trainer) -> Checkpoint {
    Checkpoint::from_bytes(&trainer.checkpoint().unwrap().to_bytes().unwrap()).unwrap()
}

fn resume(given: &GivenOptions, checkpoint: &Checkpoint) -> Result<Trainer> {
    let options = options(given);
    let dataset = dataset(&options, 0);
    Trainer::resume(options, dataset, checkpoint)
}

/// All of a model but its clock values.
fn timeless(model: &ModelFile) -> (Vec<EpochReport>, TrainingInfo, Vec<u8>) {
    let no_clock = |report: &EpochReport| EpochReport { images_per_second: 0.0, seconds: 0.0, ..report.clone() };
    let training = TrainingInfo { seconds: 0.0, created: String::new(), ..model.training().unwrap().clone() };
    // Behind the header: weights, statistics of codes, calibration.
    let bytes = model.to_bytes().unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (model.history().iter().map(no_clock).collect(), training, bytes[8 + header..].to_vec())
}

#[rstest]
#[case::mmd(&[])]
#[case::gan(&[("objective", json!("gan")), ("adversary_widths", json!("16,8")), ("log_p", json!(true))])]
#[case::vae(&[("objective", json!("vae")), ("cost", json!("structural"))])]
#[case::ae(&[("objective", json!("ae"))])]
#[case::sliced(&[("objective", json!("sliced")), ("noise", json!(0.1))])]
#[case::sinkhorn(&[("objective", json!("sinkhorn")), ("prior", json!("sphere"))])]
#[case::gaussian(&[("encoder", json!("gaussian")), ("prior", json!("uniform")), ("schedule", json!("smooth"))])]
#[case::pretrain(&[("pretrain", json!(true)), ("seed", json!(3))])]
#[case::preset(&[("preset", json!("paper-mnist")), ("latent_dim", json!(2))])]
#[case::augment(&[("augment", json!("flip,shift,brightness")), ("size", json!(16))])]
fn a_resumed_training_is_the_uninterrupted_one(#[case] more: &GivenOptions) {
    let mut given =
        vec![("network", json!("4,8")), ("epochs", json!(4)), ("batch_size", json!(9)), ("holdout", json!(0.2))];
    given.extend(more.iter().cloned());
    let whole = timeless(&finish(trainer(&given)).model().unwrap());
    for stopped in 0..=4 {
        let checkpoint = stored(&after(&given, stopped));
        let resumed = resume(&given, &checkpoint).unwrap();
        assert_eq!(resumed.history().len(), stopped);
        assert!(timeless(&finish(resumed).model().unwrap()) == whole, "stopped after epoch {stopped}");
    }
    // Stopped again and again.
    let mut trainer = trainer(&given);
    while let Some(epoch) = trainer.epochs().next() {
        epoch.unwrap();
        trainer = resume(&given, &stored(&trainer)).unwrap();
    }
    assert!(timeless(&trainer.model().unwrap()) == whole, "stopped after each epoch");
}

/// Adam's second moments remember a thousand steps: without them the tensors differ.
#[test]
fn what_is_left_out_is_missed() {
    let given = [("network", json!("4")), ("epochs", json!(3)), ("batch_size", json!(9))];
    let whole = finish(trainer(&given)).network.tensors().unwrap();
    let checkpoint = stored(&after(&given, 1));
    assert!(finish(resume(&given, &checkpoint).unwrap()).network.tensors().unwrap() == whole);
    let mut forgetful = resume(&given, &checkpoint).unwrap();
    forgetful.network.reset_optimizer().unwrap();
    assert!(finish(forgetful).network.tensors().unwrap() != whole);
}

/// λ moves at step 1,000, in epoch 56 of 18 steps; the learning rate falls when the loss stays for ten epochs.
#[rstest]
#[case::adaptive(&[("lambda_schedule", json!("adaptive")), ("batch_size", json!(2))], &[40, 57])]
#[case::plateau(&[("schedule", json!("plateau")), ("learning_rate", json!(1e-9)), ("batch_size", json!(18))], &[35, 45])]
fn what_follows_the_history_is_resumed(#[case] more: &GivenOptions, #[case] stops: &[usize]) {
    let mut given = vec![("network", json!("2")), ("epochs", json!(60)), ("kernel", json!(1))];
    given.extend(more.iter().cloned());
    let first = trainer(&given);
    let lambda = first.lambda;
    let whole = finish(first);
    let rates: Vec<f64> = whole.history().iter().map(|r| r.learning_rate).collect();
    assert!(whole.lambda != lambda || rates[59] < rates[0], "what is tested has moved");
    for stopped in stops {
        let resumed = finish(resume(&given, &stored(&after(&given, *stopped))).unwrap());
        assert_eq!(resumed.lambda, whole.lambda);
        assert!(timeless(&resumed.model().unwrap()) == timeless(&whole.model().unwrap()), "after epoch {stopped}");
    }
}

#[test]
fn every_difference_is_named() {
    let given = [("network", json!("4")), ("epochs", json!(5)), ("learning_rate", json!(0.01))];
    let checkpoint = stored(&after(&given, 2));
    let refused = |given: &GivenOptions| resume(given, &checkpoint).unwrap_err().to_string();
    assert_eq!(
        refused(&[
            ("network", json!("8")),
            ("learning_rate", json!(0.02)),
            ("epochs", json!(5)),
            ("seed", json!(1)),
            ("lambda", json!(3)),
            ("latent_dim", json!(2)),
            ("size", json!(4)),
        ]),
        "its checkpoint (epoch 2 of 5) is of another training: size was none, is [4,4]; latent_dim was 8, is 2; network was \
         [4], is [8]; network (decoder) was [4], is [8]; lambda was 4.081632653061225, is 3.0; learning_rate was 0.01, is 0.02; seed was 0, is 1"
    );
    assert_eq!(
        refused(&[
            ("network", json!("4")),
            ("epochs", json!(5)),
            ("learning_rate", json!(0.01)),
            ("objective", json!("vae")),
        ]),
        "its checkpoint (epoch 2 of 5) is of another training: encoder was 'deterministic', is 'gaussian'; objective was \
         'mmd', is 'vae'"
    );
    // The same options and other images.
    let now = options(&given);
    let others = dataset(&now, 7);
    let error = Trainer::resume(now, others, &checkpoint).unwrap_err().to_string();
    assert!(error.ends_with("of another training: the 40 images are not those that it was trained on"), "{error}");
    // What can be known without the images.
    let info = checkpoint.info();
    info.check_options(&options(&given)).unwrap();
    assert!(
        info.check_options(&options(&[("network", json!("4"))]))
            .unwrap_err()
            .to_string()
            .contains("epochs was 5, is 20")
    );
}

/// The interval of checkpoints, and options about files, do not change the model.
#[test]
fn options_about_files_may_differ() {
    let given = [("network", json!("4")), ("epochs", json!(3))];
    let checkpoint = stored(&after(&given, 2));
    let mut others = given.to_vec();
    others.extend([("checkpoint_every", json!("1 minute")), ("resume", json!(true)), ("overwrite", json!(true))]);
    resume(&others, &checkpoint).unwrap();
}

/// A GPU that is gone, or another precision, is no reason to begin anew; the difference is said.
#[test]
fn other_kernels_are_accepted_and_named() {
    let given = [("network", json!("4")), ("epochs", json!(3)), ("device", json!("cpu"))];
    let text = String::from_utf8_lossy(&after(&given, 1).checkpoint().unwrap().to_bytes().unwrap()).into_owned();
    let here = Target::cpu().kernels();
    let here = here.as_str();
    assert!(text.contains(&format!(r#"\"kernels\":\"{here}\""#)), "the file names them");
    let checkpoint = stored(&after(&given, 1));
    assert_eq!(checkpoint.info().other_kernels(here), None);
    let warning = checkpoint.info().other_kernels("cuda tf32").unwrap();
    assert!(warning.contains(&format!("computed by '{here}', and the training goes on by 'cuda tf32'")), "{warning}");
}

/// From the GPU to the CPU and back, and between precisions: weights, moments and history go along.
#[cfg(feature = "cuda")]
#[test]
fn a_training_goes_on_on_another_cuda_device() {
    if Target::gpu_of_tests(crate::Precision::F32).is_none() {
        return;
    }
    let on = |device: &str, precision: &str| {
        [("network", json!("4")), ("epochs", json!(4)), ("device", json!(device)), ("precision", json!(precision))]
    };
    let whole = finish(trainer(&on("cpu", "f32")));
    let mut trainer = after(&on("cuda:0", "f32"), 1);
    for (device, precision, kernels) in [
        ("cpu", "f32", "cuda f32"),
        ("cuda:0", "tf32", crate::kernels::backend().name()),
        ("cuda:0", "f32", "cuda tf32"),
    ] {
        let checkpoint = stored(&trainer);
        assert_eq!(checkpoint.info().state.kernels, kernels);
        trainer = resume(&on(device, precision), &checkpoint).unwrap();
        trainer.epochs().next().unwrap().unwrap();
    }
    for (got, expected) in trainer.history().iter().zip(whole.history()) {
        assert!((got.loss / expected.loss - 1.0).abs() < 1e-3, "{} {}", got.loss, expected.loss);
    }
    assert_eq!(trainer.history().len(), 4);
}

/// `step` halves the rate at 60 % of the epochs: 3 of 5 and 6 of 10.
#[rstest]
#[case::step_before_its_decay("step", 2, 10, None)]
#[case::step_after_its_decay("step", 4, 10, Some("with which the epochs done would have had other learning rates"))]
#[case::smooth("smooth", 2, 10, Some("with which the epochs done would have had other learning rates"))]
#[case::constant("constant", 4, 10, None)]
#[case::manual("manual", 4, 10, None)]
#[case::fewer("constant", 4, 4, None)]
#[case::too_few("constant", 4, 3, Some("fewer than the 4 that are done"))]
fn more_epochs_where_that_is_exact(
    #[case] schedule: &'static str,
    #[case] stopped: usize,
    #[case] epochs: usize,
    #[case] refused: Option<&str>,
) {
    let given = |epochs: usize| [("network", json!("4")), ("epochs", json!(epochs)), ("schedule", json!(schedule))];
    let checkpoint = stored(&after(&given(5), stopped));
    match (resume(&given(epochs), &checkpoint), refused) {
        (Ok(resumed), None) => {
            let whole = finish(trainer(&given(epochs)));
            assert!(finish(resumed).network.tensors().unwrap() == whole.network.tensors().unwrap());
        }
        (Err(error), Some(why)) => {
            let expected = format!("epochs was 5, is {epochs}, {why}");
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
        (got, _) => panic!("{got:?}"),
    }
}

#[test]
fn training_begins_with_a_models_weights() {
    let given = [("network", json!("4")), ("epochs", json!(2)), ("latent_dim", json!(3))];
    let model = finish(trainer(&given)).model().unwrap();
    let from = |given: &GivenOptions| {
        let options = options(given);
        let images = dataset(&options, 0);
        Trainer::from_model(options, images, &model)
    };
    let with = |more: &GivenOptions| given.iter().chain(more).cloned().collect::<Vec<_>>();
    let begun = from(&with(&[("init", json!("m")), ("seed", json!(9))])).unwrap();
    assert!(begun.network.tensors().unwrap() == *model.tensors(), "whatever the seed");
    assert_eq!(begun.network.steps(), 0);
    assert_eq!(begun.model().unwrap().training().unwrap().options["init"], "m");
    // Another objective is another aim for the same network; its discriminator is new.
    let gan = from(&with(&[("objective", json!("gan")), ("adversary_widths", json!("8"))])).unwrap();
    let tensors = gan.network.tensors().unwrap();
    assert!(model.tensors().iter().all(|(name, tensor)| tensors[name] == *tensor));
    assert!(tensors.contains_key("adversary.0.weight"));

    for (other, message) in [
        (("latent_dim", json!(5)), "it has latent_dim 3, expected 5 as the options say"),
        (("network", json!("4,8")), "it has encoder widths 4, expected 4,8 as the options say"),
        (("kernel", json!(3)), "it has convolution kernel 4, expected 3 as the options say"),
        (("size", json!(8)), "it has images of [4, 4, 1], expected [8, 8, 1] as the options say"),
    ] {
        let mut given: Vec<_> = given.iter().filter(|(name, _)| *name != other.0).cloned().collect();
        given.push(other);
        assert_eq!(from(&given).unwrap_err().to_string(), message);
    }
    let named = options(&with(&[("init", json!("m"))]));
    let images = dataset(&named, 0);
    let error = Trainer::try_new(named, images).unwrap_err().to_string();
    assert_eq!(error, "option 'init' is 'm', expected that model beside the options");
}

#[test]
fn an_epoch_that_was_not_ended_is_no_checkpoint() {
    let mut trainer = after(&[("network", json!("4"))], 1).cancelled_by(Arc::new(AtomicBool::new(true)));
    let epochs: Vec<_> = trainer.epochs().collect();
    assert!(matches!(epochs[..], [Err(Error::Cancelled)]), "{epochs:?}");
    assert!(trainer.epochs().next().is_none(), "there is no going on from there");
    let error = trainer.checkpoint().unwrap_err().to_string();
    assert_eq!(error, "a checkpoint is taken between two epochs, and one was not ended");
}

/// Cancelled while it is evaluated or calibrated, a training stops as it does within a step.
#[test]
fn evaluation_and_calibration_can_be_cancelled() {
    let flag = Arc::new(AtomicBool::new(true));
    let given = [("network", json!("4")), ("epochs", json!(1))];
    let trainer = after(&given, 1).cancelled_by(Arc::clone(&flag));
    assert!(matches!(trainer.evaluate(), Err(Error::Cancelled)));
    assert!(matches!(trainer.model(), Err(Error::Cancelled)));
    flag.store(false, Ordering::Relaxed);
    trainer.model().unwrap();
}
