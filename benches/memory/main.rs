//! The memory of training and scoring when the images do not fit: generates images, trains an epoch under a limit on
//! the query's memory pool and scores two tables, each in a process of its own, and prints their peaks (Linux).
//!
//! ```sh
//! cargo run --example memory                                            # 10,000 images in half a minute
//! cargo run --example memory -- --rows 200000 --pool 512                # 2.4 GB of decoded images in minutes
//! ```
//!
//! It ends with an error if a training whose images went to a file has another loss than the same with all of them in
//! memory.
#![expect(clippy::print_stdout, reason = "it prints its table")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Float64Type;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_wae::WaeTrainExec;
use serde_json::{Value, json};
use wae_core::TrainOptions;

mod generate;

/// As in the `wae` shell.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A result with any error.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Generates images, trains and scores, and prints time and memory.
#[derive(Debug, Parser)]
struct Options {
    /// Images of 64×64×3 in the large table; the small one has a tenth.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rows: usize,
    /// The limit of the memory pool, in MB.
    #[arg(long, value_name = "MB", default_value_t = 200)]
    pool: usize,
    /// The encoder's widths.
    #[arg(long, value_name = "WIDTHS", default_value = "8,16")]
    network: String,
    /// The folder of the tables, which are kept, and of the models.
    #[arg(long, value_name = "DIR", default_value = "target/memory")]
    dir: PathBuf,
    /// The step that a process of its own runs.
    #[arg(long, hide = true)]
    step: Option<Step>,
    /// The table that it reads.
    #[arg(long, hide = true, default_value_t = 0)]
    of: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Train,
    Score,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    match options.step {
        Some(step) => println!("{}", options.run(step).await?),
        None => options.measure()?,
    }
    Ok(())
}

impl Options {
    /// Every step in a process of its own, as a process's peak never falls.
    fn measure(&self) -> Result<()> {
        let small = self.rows / 10;
        for rows in [self.rows, small] {
            generate::table(&self.table(rows), rows)?;
        }
        println!("| step | images | pool, MB | seconds | images/s | spilled, MB | peak RSS, MB | loss or mean cost |");
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        self.process(Step::Train, self.rows, self.pool)?;
        // The same images in memory, and under a pool that has room for half of them.
        let decoded = small * generate::SHAPE.len() / 1_000_000;
        let options = TrainOptions::try_from_options([("network", self.network.as_str().into())])?;
        let beside = options.memory(generate::SHAPE)? / 1_000_000 + 12;
        let memory = self.process(Step::Train, small, 1_000_000)?;
        let file = self.process(Step::Train, small, beside + decoded / 2)?;
        self.process(Step::Score, small, self.pool)?;
        self.process(Step::Score, self.rows, self.pool)?;
        if memory["value"] != file["value"] || file["spilled"] == 0 || memory["spilled"] != 0 {
            return Err(format!("in memory: {memory}, from a file: {file}").into());
        }
        println!("\nThe {small} images train to the same loss in memory and from a file, bit for bit.");
        Ok(())
    }

    fn process(&self, step: Step, rows: usize, pool: usize) -> Result<Value> {
        let name = if step == Step::Train { "train" } else { "score" };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--step", name, "--network", &self.network]).arg("--dir").arg(&self.dir);
        command.args(["--of", &rows.to_string(), "--pool", &pool.to_string()]);
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{name} ended with {}", output.status).into());
        }
        let got: Value = serde_json::from_slice(&output.stdout)?;
        let seconds = got["seconds"].as_f64().unwrap_or_default();
        println!(
            "| {name} | {rows} | {pool} | {seconds:.1} | {:.0} | {:.0} | {} | {} |",
            rows as f64 / seconds,
            got["spilled"].as_f64().unwrap_or_default() / 1e6,
            got["peak"],
            got["value"]
        );
        Ok(got)
    }

    fn table(&self, rows: usize) -> PathBuf {
        self.dir.join(format!("{rows}.parquet"))
    }

    /// One step: its seconds, its loss or mean cost, what it spilled, and the peak of this process so far.
    async fn run(&self, step: Step) -> Result<Value> {
        let ctx = self.context().await?;
        let sql = match step {
            Step::Train => format!(
                "SELECT loss FROM wae_train('images', model => 'm', network => '{}', epochs => 1, overwrite => true)",
                self.network
            ),
            Step::Score => "SELECT avg(wae_reconstruction_cost(image, 'm')) FROM images".to_owned(),
        };
        let start = Instant::now();
        let plan = ctx.sql(&sql).await?.create_physical_plan().await?;
        let batches = collect(Arc::clone(&plan), ctx.task_ctx()).await?;
        let seconds = start.elapsed().as_secs_f64();
        let column = batches.first().map(|batch| batch.column(0)).filter(|column| !column.is_empty());
        let value = column.and_then(|column| Some(column.as_primitive_opt::<Float64Type>()?.value(0)));
        let value = value.ok_or("no result")?;
        Ok(json!({"seconds": seconds, "value": value, "spilled": spilled(&plan), "peak": peak()?}))
    }

    async fn context(&self) -> Result<SessionContext> {
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(self.pool * 1_000_000, 1.0);
        let ctx = SessionContext::new_with_config_rt(SessionConfig::new(), runtime.build_arc()?);
        datafusion_wae::register_all(&ctx)?;
        let path = self.table(self.of);
        ctx.register_parquet("images", path.to_str().ok_or("the folder's name is no text")?, Default::default())
            .await?;
        ctx.sql(&format!("SET wae.model_dir = '{}'", self.dir.join("models").display())).await?.collect().await?;
        Ok(ctx)
    }
}

/// Bytes that the training in a plan moved to a file.
fn spilled(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = plan.downcast_ref::<WaeTrainExec>().and_then(|training| training.metrics()?.spilled_bytes());
    own.unwrap_or_else(|| plan.children().into_iter().map(spilled).sum())
}

/// The most memory that this process has had, in MB.
fn peak() -> Result<usize> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    let kilobytes: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024 / 1_000_000)
}
