//! Faults while a model is trained: killed processes, full disks, queries that are dropped, two processes that want one
//! name.
//!
//! Real processes of the shell, real files. `WAE_FAULTS=full` runs as many as the project promises (50 kills, 10 sizes
//! of disk, 20 cancellations: minutes); otherwise a few of each. The disk that is full is a tmpfs, which takes root to
//! mount; without, the test says that it skips, and the limit on a file's size stands in. The tables are on standard
//! error (`--nocapture`).
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "support/session.rs"]
mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use futures::StreamExt;
use session::TRAIN;
use tempfile::TempDir;
use wae_core::{Checkpoint, EpochReport, ModelFile, TrainingInfo};

const EPOCHS: usize = 6;

/// The number of faults of a kind: `few`, or `all` under `WAE_FAULTS=full`.
fn faults(few: usize, all: usize) -> usize {
    if std::env::var("WAE_FAULTS").is_ok_and(|v| v == "full") { all } else { few }
}

/// Numbers in [0, 1) that are the same in every run.
fn random(i: usize) -> f64 {
    let mut x = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A training as a statement; one of 630 images, a tenth held out.
fn training(model: &str, options: &str) -> String {
    format!(
        "SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label = 0), model => '{model}',
             network => '32,64', {options})"
    )
}

/// The one that is interrupted.
fn interrupted() -> String {
    training("m", &format!("epochs => {EPOCHS}, checkpoint_every => 1, resume => true, overwrite => true"))
}

/// The shell on a folder of models, with statements to run.
fn shell(dir: &Path, statement: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wae"));
    let set = format!("SET wae.model_dir = '{}'", dir.display());
    command.args(["--format", "csv", "-c", &set, statement]).env("RUST_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(dir: &Path, statement: &str) -> Output {
    shell(dir, statement).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a statement that has to succeed.
fn succeed(dir: &Path, statement: &str) {
    let output = run(dir, statement);
    assert!(output.status.success(), "{statement}\n{}", stderr(&output));
}

/// The names of a folder's files, sorted.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn temporary(dir: &Path) -> usize {
    files(dir).iter().filter(|name| name.ends_with(".tmp")).count()
}

/// All of a model but its clock values: history, training, and the bytes behind the header.
fn timeless(bytes: &[u8]) -> (Vec<EpochReport>, TrainingInfo, Vec<u8>) {
    let model = ModelFile::from_bytes(bytes).expect("a readable model");
    let no_clock = |report: &EpochReport| EpochReport { images_per_second: 0.0, seconds: 0.0, ..report.clone() };
    let training = TrainingInfo { seconds: 0.0, created: String::new(), ..model.training().unwrap().clone() };
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (model.history().iter().map(no_clock).collect(), training, bytes[8 + header..].to_vec())
}

/// The model of the training that nobody interrupts, an older model of the same name, and the time that the training
/// takes.
struct Expected {
    whole: Vec<u8>,
    old: Vec<u8>,
    time: Duration,
}

static EXPECTED: LazyLock<Expected> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("m.safetensors");
    succeed(dir.path(), &training("m", "epochs => 1, seed => 7"));
    let old = std::fs::read(&file).unwrap();
    let begun = Instant::now();
    succeed(dir.path(), &interrupted());
    Expected { whole: std::fs::read(&file).unwrap(), old, time: begun.elapsed() }
});

/// Waits until a condition holds; whoever waits ten minutes waits for ever.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(600), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that is killed with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The state after a kill: the checkpoint's epoch, if there is one, and the number of temporary files.
fn after_kill(dir: &Path) -> (String, usize) {
    let expected = &*EXPECTED;
    let bytes = std::fs::read(dir.join("m.safetensors")).unwrap();
    let is_new = bytes != expected.old;
    if is_new {
        assert!(timeless(&bytes) == timeless(&expected.whole), "the old model, byte for byte, or the new one");
    }
    let checkpoint = dir.join(".m.checkpoint");
    let found = match checkpoint.exists() {
        true => {
            format!("epoch {}", Checkpoint::read(&checkpoint).expect("a readable checkpoint").info().history().len())
        }
        false if is_new => "ended".to_owned(),
        false => "none".to_owned(),
    };
    (found, temporary(dir))
}

/// `kill -9` at any moment: the model is the old one or the new one, the checkpoint is whole, and going on gives the
/// tensors of the training that was not killed. One in four is killed a second time. Kills that came after the end
/// count as none: the next come earlier, since the machine may be less loaded than it was when the whole training was
/// timed.
#[test]
fn a_killed_training_goes_on_to_the_same_tensors() {
    let expected = &*EXPECTED;
    let kills = faults(3, 50);
    let mut found = BTreeMap::<String, usize>::new();
    let mut left = 0;
    let mut trainings = 0;
    let mut time = expected.time;
    while found.iter().filter(|(at, _)| *at != "ended").map(|(_, times)| times).sum::<usize>() < kills {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("m.safetensors"), &expected.old).unwrap();
        for again in 0..=usize::from(trainings % 4 == 3) {
            let mut child = Killed(shell(dir.path(), &interrupted()).spawn().unwrap());
            std::thread::sleep(time.mul_f64(random(2 * trainings + again)));
            child.0.kill().unwrap();
            child.0.wait().unwrap();
            let (checkpoint, temporary) = after_kill(dir.path());
            time = if checkpoint == "ended" { time / 2 } else { expected.time.min(time * 2) };
            *found.entry(checkpoint).or_default() += 1;
            left += temporary;
        }
        succeed(dir.path(), &interrupted());
        let model = std::fs::read(dir.path().join("m.safetensors")).unwrap();
        assert!(timeless(&model) == timeless(&expected.whole), "training {trainings}");
        assert_eq!(files(dir.path()), ["m.safetensors"], "nothing else stays");
        trainings += 1;
        assert!(trainings < 10 * kills, "{found:?}");
    }
    let found: Vec<_> = found.iter().map(|(at, times)| format!("{at}: {times}")).collect();
    eprintln!(
        "{trainings} trainings killed; checkpoint found ({}); {left} temporary files left, all removed by the next training; \
         0 unreadable models, all ended in the tensors of the training that was not killed",
        found.join(", ")
    );
}

/// A folder on a file system of its own, of so many bytes.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn try_new(bytes: usize) -> Result<Self, String> {
        let dir = TempDir::new().unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "wae-test"], dir.path())?;
        Ok(Self(dir))
    }

    fn resize(&self, bytes: usize) {
        mount(&["-o", &format!("remount,size={bytes}")], self.0.path()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], dir: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(dir).output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(stderr(&output).trim().to_owned()) }
}

/// After a failure to write: a clear error, the old model as it was, nothing half written.
fn check_refused(dir: &Path, output: &Output, reason: &str) -> String {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("wae_train: cannot write") && message.contains(reason), "{message}");
    assert!(std::fs::read(dir.join("m.safetensors")).unwrap() == EXPECTED.old, "the old model, byte for byte");
    assert!(
        files(dir).iter().all(|name| ["m.safetensors", ".m.checkpoint"].contains(&name.as_str())),
        "{:?}",
        files(dir)
    );
    if dir.join(".m.checkpoint").exists() {
        Checkpoint::read(dir.join(".m.checkpoint")).unwrap();
    }
    let checkpoint = message.split("the checkpoint of epoch ").nth(1).and_then(|rest| rest.split(' ').next());
    checkpoint.map_or_else(|| "the model".to_owned(), |epoch| format!("checkpoint of epoch {epoch}"))
}

/// The interrupted training, which writes checkpoints or does not.
fn with_checkpoints(checkpoints: bool) -> String {
    let every = if checkpoints { "checkpoint_every => 1" } else { "checkpoint_every => 0" };
    interrupted().replace("checkpoint_every => 1", every)
}

/// Once there is room, the same statement ends in the tensors of the training that nothing happened to.
fn check_goes_on(dir: &Path, statement: &str) {
    succeed(dir, statement);
    let expected = timeless(&EXPECTED.whole);
    let (history, _, tensors) = timeless(&std::fs::read(dir.join("m.safetensors")).unwrap());
    assert!(history == expected.0 && tensors == expected.2);
    assert_eq!(files(dir), ["m.safetensors"]);
}

/// From a disk on which nothing fits beside the old model to one on which all does; every other one without
/// checkpoints, so that the model is what does not fit.
#[test]
fn a_full_disk_is_a_clear_error_and_loses_nothing() {
    let expected = &*EXPECTED;
    let sizes = faults(3, 10);
    let page = 4096;
    let model = expected.old.len().max(expected.whole.len()).next_multiple_of(page);
    let mut failed = Vec::new();
    let mut ended = 0;
    for i in 0..sizes {
        // Room for the old model, a checkpoint of three times its size, and the one that replaces it; or for less than
        // a model.
        let checkpoints = i % 2 == 0;
        let room = if checkpoints { 8 * i * model / (sizes - 1).next_multiple_of(2) } else { i * model / sizes };
        let size = (model + page + room).next_multiple_of(page);
        let disk = match SmallDisk::try_new(size) {
            Ok(disk) => disk,
            Err(e) => return eprintln!("skipped: no tmpfs can be mounted ({e})"),
        };
        let dir = disk.0.path();
        let statement = with_checkpoints(checkpoints);
        std::fs::write(dir.join("m.safetensors"), &expected.old).unwrap();
        let output = run(dir, &statement);
        if output.status.success() {
            ended += 1;
        } else {
            let what = check_refused(dir, &output, "No space left on device");
            failed.push(format!("{:.1}: {what}", size as f64 / model as f64));
            disk.resize(20 * model);
        }
        check_goes_on(dir, &statement);
    }
    assert!(failed.len() >= 2, "{failed:?}, {ended} ended");
    eprintln!(
        "{sizes} sizes of disk: {} failed with a clear error (size in models: at what; {}), each went on to the same tensors \
         once there was room; {ended} were large enough; 0 old models lost, 0 temporary files left",
        failed.len(),
        failed.join("; ")
    );
}

/// The same without root: files may have so many bytes only.
#[test]
fn a_file_that_cannot_grow_is_a_clear_error() {
    let expected = &*EXPECTED;
    for (share, checkpoints) in [(0.5, false), (0.5, true), (1.5, true)] {
        let dir = TempDir::new().unwrap();
        let statement = with_checkpoints(checkpoints);
        std::fs::write(dir.path().join("m.safetensors"), &expected.old).unwrap();
        // Blocks of 512 bytes; the signal is ignored, so that writing fails instead.
        let blocks = (expected.whole.len() as f64 * share) as usize / 512;
        let plain = shell(dir.path(), &statement);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
        let output = command.env("RUST_LOG", "warn").output().unwrap();
        let what = check_refused(dir.path(), &output, "File too large");
        assert_eq!(what, if checkpoints { "checkpoint of epoch 1" } else { "the model" });
        check_goes_on(dir.path(), &statement);
    }
}

/// A training without end, which has written a checkpoint.
fn endless(dir: &Path, model: &str) -> Killed {
    let child = Killed(shell(dir, &training(model, "epochs => 100000, checkpoint_every => 1")).spawn().unwrap());
    wait_for("a checkpoint is written", || dir.join(format!(".{model}.checkpoint")).exists());
    child
}

#[test]
fn one_name_is_trained_by_one_process_and_a_crash_releases_it() {
    let dir = TempDir::new().unwrap();
    let first = endless(dir.path(), "m");
    assert!(files(dir.path()).contains(&".m.lock".to_owned()));
    let again = training("m", "epochs => 1, overwrite => true");
    for (function, statement) in [
        ("wae_train", again.as_str()),
        ("wae_drop", "SELECT * FROM wae_drop('m')"),
        ("wae_rename", "SELECT * FROM wae_rename('m', 'n')"),
    ] {
        let output = run(dir.path(), statement);
        let expected =
            format!("{function}: model 'm' is being trained, calibrated, removed or renamed by another process");
        assert!(!output.status.success() && stderr(&output).contains(&expected), "{}", stderr(&output));
    }
    // Another name is no affair of the first; nor are the first's files of the second.
    succeed(dir.path(), &training("m.2", "epochs => 1"));
    assert!(files(dir.path()).contains(&".m.checkpoint".to_owned()));

    drop(first); // kill -9
    assert!(files(dir.path()).contains(&".m.lock".to_owned()), "the file stays, its lock does not");
    succeed(dir.path(), &again);
    assert_eq!(files(dir.path()), ["m.2.safetensors", "m.safetensors"]);
}

/// Two processes that begin at once: one trains.
#[test]
fn of_two_that_begin_at_once_one_is_refused() {
    for _ in 0..faults(1, 10) {
        let dir = TempDir::new().unwrap();
        let statement = training("m", "epochs => 3, overwrite => true");
        let both = [(); 2].map(|()| shell(dir.path(), &statement).spawn().unwrap());
        let outputs = both.map(|child| child.wait_with_output().unwrap());
        let refused = outputs.iter().filter(|o| stderr(o).contains("by another process")).count();
        let ended = outputs.iter().filter(|o| o.status.success()).count();
        // They may have come one after the other.
        assert!(ended >= 1 && ended + refused == 2, "{} {}", stderr(&outputs[0]), stderr(&outputs[1]));
        assert_eq!(files(dir.path()), ["m.safetensors"]);
    }
}

#[test]
fn interrupting_the_shell_stops_the_training_and_says_what_stays() {
    let dir = TempDir::new().unwrap();
    let mut child = endless(dir.path(), "m");
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    wait_for("the shell ends", || child.0.try_wait().unwrap().is_some());
    let mut text = String::new();
    std::io::Read::read_to_string(child.0.stderr.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(1), "{text}");
    let epoch = Checkpoint::read(dir.path().join(".m.checkpoint")).unwrap().info().history().len();
    let expected = format!("cancelled: the checkpoint of epoch {epoch} of 100000 of model 'm' stays");
    assert!(text.contains(&expected), "{text}");
    assert_eq!(files(dir.path()), [".m.checkpoint"], "no lock, no temporary file, no model");
}

/// Threads of this process that bear a name.
#[cfg(target_os = "linux")]
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    names.filter(|comm| comm.trim() == name).count()
}

/// Dropped at any moment, while it reads, trains, evaluates, calibrates or writes, a query leaves no thread once a
/// batch is done.
///
/// The training is one epoch of 945 batches. If it stopped at the epoch's end only, queries dropped at moments that are
/// spread over it would wait for half of it in the median; those that stop within a batch wait for a thousandth. In
/// between, with room for a machine that is a hundred times slower than when the whole training was timed, is a
/// quarter.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_query_stops_within_a_batch_and_leaves_no_thread() {
    rayon_threads();
    let dir = TempDir::new().unwrap();
    let ctx = session::context(dir.path()).await;
    let sql = format!(
        "SELECT images FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label < 3), model => 'm', network => 'small',
             epochs => 1, batch_size => 2, holdout => 0.1, checkpoint_every => 1, overwrite => true)"
    );
    let begun = Instant::now();
    let rows = session::query(&ctx, &sql).await;
    let whole = begun.elapsed();
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 945 * 2);
    let times = faults(4, 20);
    let mut stops = Vec::new();
    for i in 0..times {
        let mut stream = ctx.sql(&sql).await.unwrap().execute_stream().await.unwrap();
        let moment = whole.mul_f64((i as f64 + random(i)) / times as f64);
        let read = async { while stream.next().await.is_some() {} };
        let _ = tokio::time::timeout(moment, read).await;
        drop(stream);
        let dropped = Instant::now();
        wait_for("the training's thread ends", || threads("wae_train") == 0);
        stops.push(dropped.elapsed());
    }
    stops.sort();
    // In the median: a file that is being written is written to its end, and synced, which a busy disk holds up.
    let median = stops[times / 2];
    let longest = stops[times - 1];
    assert!(median < whole / 4, "{stops:?}, the whole training takes {whole:?}");
    assert_eq!(temporary(dir.path()), 0);
    eprintln!(
        "{times} queries dropped: stopped after {median:?} in the median, {longest:?} at most; the whole training, of 945 \
         batches, takes {whole:?}; no thread left"
    );
}

/// Starts rayon's pool, whose threads would inherit the name of a training's thread.
#[cfg(target_os = "linux")]
fn rayon_threads() {
    rayon::current_num_threads();
}

/// Only what other programs wrote under such names.
#[test]
fn temporary_files_of_others_are_left() {
    let dir = TempDir::new().unwrap();
    let keep: Vec<PathBuf> = [".m.2.dead01.tmp", ".m.notes.txt", "m.tmp"].map(|name| dir.path().join(name)).into();
    let gone = dir.path().join(".m.dead01.tmp");
    keep.iter().chain([&gone]).for_each(|path| std::fs::write(path, "half a file").unwrap());
    succeed(dir.path(), &training("m", "epochs => 1"));
    assert!(!gone.exists() && keep.iter().all(|path| path.exists()), "{:?}", files(dir.path()));
}
