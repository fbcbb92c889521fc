//! Two tables about whole data sets, through SQL: (a) the objectives compared on Fashion-MNIST, and (b) one class
//! against the rest, beside two baselines.
//!
//! ```sh
//! python fixtures/make.py full target/data                     # downloads both data sets
//! cargo run --example tables -- --seeds 3                      # hours: start it, stop it, start it again
//! ```
//!
//! Each finished cell is a line of the results file (`benches/tables.jsonl`), with everything that identifies it. A
//! cell that is there already is not computed again: after an interruption the rest is, and a change of the options
//! below computes anew what it concerns. The tables are printed as Markdown, from the file.
#![expect(clippy::print_stdout, reason = "it prints its tables")]

mod baselines;
mod markdown;
mod objectives;
mod one_class;
mod results;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::SessionContext;
use serde_json::Value;

use self::results::Results;

/// Options of every model of table (a), but for the objective, the epochs and the seed.
const OBJECTIVES: &str = "network => '32,64,128', latent_dim => 8";

/// Options of every model of table (b), for every class of both data sets, but for the objective and the seed.
const ONE_CLASS: &str = "network => '16,32', latent_dim => 8, noise => 0.2, epochs => 12, batch_size => 25";

/// The feature space of table (a)'s Fréchet distance: the codes of this model, trained on the training rows.
const FEATURES: &str =
    "objective => 'ae', network => '32,64,128', latent_dim => 64, epochs => 10, seed => 0, holdout => 0";

/// The objectives that are compared.
const OBJECTIVE_NAMES: [&str; 4] = ["mmd", "gan", "vae", "ae"];

/// Images drawn from the prior for table (a).
const SAMPLES: usize = 10_000;

/// A result with any error.
pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Prints the tables; computes the cells that the results file lacks.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// The folder that `fixtures/make.py full` wrote.
    #[arg(long, value_name = "DIR", default_value = "target/data")]
    pub data: PathBuf,
    /// Trainings of each model, with the seeds 0, 1, ...
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seeds: u64,
    /// Epochs of each training of table (a).
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub epochs: u64,
    /// Which table.
    #[arg(long, value_enum, default_value_t = Table::Both)]
    pub table: Table,
    /// Data sets of table (b).
    #[arg(long, value_delimiter = ',', default_value = "mnist10k,fashion")]
    pub sets: Vec<String>,
    /// Classes of table (b).
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3,4,5,6,7,8,9")]
    pub classes: Vec<i64>,
    /// Methods: the objectives mmd, gan, vae and ae, and for table (b) the baselines pca and nearest.
    #[arg(long, value_delimiter = ',', default_value = "mmd,gan,vae,ae,pca,nearest")]
    pub methods: Vec<String>,
    /// The file of finished cells.
    #[arg(long, value_name = "FILE", default_value = "benches/tables.jsonl")]
    pub results: PathBuf,
    /// The folder for models.
    #[arg(long, value_name = "DIR", default_value = "target/tables/models")]
    pub models: PathBuf,
}

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// The objectives on Fashion-MNIST.
    A,
    /// One class against the rest.
    B,
    /// Both.
    Both,
}

#[tokio::main]
async fn main() -> Result<()> {
    let started = Instant::now();
    let run = run(&Options::parse()).await?;
    println!("{}\n{} cells computed in {:.0} s.", run.markdown, run.computed, started.elapsed().as_secs_f64());
    Ok(())
}

/// The result of a run.
pub struct Run {
    /// The tables.
    pub markdown: String,
    /// Cells that were not in the results file yet.
    pub computed: usize,
}

/// Computes the cells that are missing, and lays all out.
pub async fn run(options: &Options) -> Result<Run> {
    let mut bench = Bench::new(options.clone()).await?;
    let mut markdown = String::new();
    if options.table != Table::B {
        markdown += &objectives::table(&mut bench).await?;
    }
    if options.table != Table::A {
        markdown += &one_class::table(&mut bench).await?;
    }
    Ok(Run { markdown, computed: bench.results.computed })
}

/// The parts that both tables need.
pub struct Bench {
    options: Options,
    ctx: SessionContext,
    results: Results,
}

impl Bench {
    async fn new(options: Options) -> Result<Self> {
        let ctx = datafusion_wae::session_context()?;
        std::fs::create_dir_all(&options.models)?;
        ctx.sql(&format!("SET wae.model_dir = '{}'", options.models.display())).await?.collect().await?;
        let results = Results::open(&options.results)?;
        Ok(Self { options, ctx, results })
    }

    /// Makes a data set's views `NAME_train` and `NAME_test`, and gives the values that identify it.
    async fn open(&self, name: &str) -> Result<Value> {
        let mut rows = Vec::new();
        for split in ["train", "test"] {
            let file = self.options.data.join(name).join(format!("{split}.parquet"));
            let sql = format!("CREATE OR REPLACE VIEW {name}_{split} AS SELECT * FROM '{}'", file.display());
            self.batch(&sql).await.map_err(|e| format!("{}: {e}", file.display()))?;
            rows.push(self.count(&format!("SELECT count(*) FROM {name}_{split}")).await?);
        }
        Ok(serde_json::json!({"name": name, "train_rows": rows[0], "test_rows": rows[1]}))
    }

    /// Trains a model, in the place of another of that name.
    async fn train(&self, source: &str, model: &str, options: &str) -> Result<()> {
        let sql = format!("SELECT epoch FROM wae_train(({source}), model => '{model}', overwrite => true, {options})");
        self.batch(&sql).await.map(|_| ())
    }

    /// The rows of a query, all in one batch.
    async fn batch(&self, sql: &str) -> Result<RecordBatch> {
        let frame = self.ctx.sql(sql).await?;
        let schema = std::sync::Arc::clone(frame.schema().inner());
        let batches = frame.collect().await?;
        // The batches' own: a query's plan may know less of a column than its rows do.
        let schema = batches.first().map_or(schema, RecordBatch::schema);
        Ok(concat_batches(&schema, &batches)?)
    }

    /// The numbers of a query's one row; NULL is NaN.
    async fn numbers(&self, sql: &str) -> Result<Vec<f64>> {
        let batch = self.batch(sql).await?;
        let number = |column: &dyn Array| -> Result<f64> {
            let column = column.as_primitive_opt::<Float64Type>().ok_or("a Float64 expected")?;
            Ok(if column.is_null(0) { f64::NAN } else { column.value(0) })
        };
        batch.columns().iter().map(|column| number(column)).collect()
    }

    async fn count(&self, sql: &str) -> Result<i64> {
        let batch = self.batch(sql).await?;
        Ok(batch.column(0).as_primitive_opt::<Int64Type>().ok_or("an Int64 expected")?.value(0))
    }
}
