//! The `wae` shell: SQL over images and models.
//!
//! `wae` reads statements from the terminal or a pipe, `wae -c SQL...` runs those given, `wae -f FILE` those in a file.
//! `wae report` writes a page about a model and a table of images.

#[path = "wae/output.rs"]
mod output;
#[path = "wae/progress.rs"]
mod progress;
#[path = "wae/report.rs"]
mod report;
#[path = "wae/script.rs"]
mod script;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::config::ConfigOptions;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion_wae::WaeTrainExec;
use futures::{FutureExt, StreamExt};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::Runtime;

use self::output::{Format, Output};
use self::progress::Progress;
use self::script::{Script, decode, is_complete};

/// As DataFusion's own shell: the megabytes of a step's activations would go back to the system and be faulted in again
/// at every step with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wasserstein auto-encoders in SQL.
#[derive(Debug, Parser)]
#[command(name = "wae", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Statements to run, then exit.
    #[arg(short = 'c', long = "command", value_name = "SQL", num_args = 1..)]
    commands: Vec<String>,
    /// A file of statements to run, then exit.
    #[arg(short, long, value_name = "FILE", conflicts_with = "commands")]
    file: Option<PathBuf>,
    /// How results are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// A task of more than one statement.
    #[command(subcommand)]
    task: Option<Task>,
}

/// A task of its own.
#[derive(Debug, Subcommand)]
enum Task {
    /// Write a page about a model and a table of images: one HTML file, without scripts.
    Report(report::ReportArguments),
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    match start(&Arguments::parse_from(std::env::args_os().map(as_statement))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.strip_backtrace());
            ExitCode::FAILURE
        }
    }
}

/// An argument, with a space before it if it is a statement that begins with a comment: clap would take `-- this` for a
/// flag, but the name of a flag has no space.
fn as_statement(argument: OsString) -> OsString {
    let name = argument.to_str().and_then(|text| text.strip_prefix("--")?.split('=').next());
    if name.is_some_and(|name| name.contains(char::is_whitespace)) {
        let mut statement = OsString::from(" ");
        statement.push(argument);
        return statement;
    }
    argument
}

fn start(arguments: &Arguments) -> Result<()> {
    let runtime = Runtime::new()?;
    let shell = Shell { ctx: datafusion_wae::session_context()?, format: arguments.format };
    if let Some(Task::Report(arguments)) = &arguments.task {
        arguments.commands.iter().try_for_each(|sql| runtime.block_on(shell.run(sql)))?;
        return runtime.block_on(report::run(&shell.ctx, arguments));
    }
    if let Some(file) = &arguments.file {
        let name = file.display().to_string();
        let script = std::fs::read(file).map_err(|e| exec_datafusion_err!("{name}: {e}"))?;
        return runtime.block_on(shell.run(&decode(script, &name)?));
    }
    if arguments.commands.is_empty() {
        let input = io::stdin();
        return if input.is_terminal() { shell.interact(&runtime) } else { shell.read(&runtime, input.lock()) };
    }
    arguments.commands.iter().try_for_each(|sql| runtime.block_on(shell.run(sql)))
}

struct Shell {
    ctx: SessionContext,
    format: Format,
}

impl Shell {
    /// Reads statements from a pipe and runs each as it is complete, up to the first that fails. The last needs no
    /// semicolon.
    fn read(&self, runtime: &Runtime, input: impl BufRead) -> Result<()> {
        let mut sql = String::new();
        for line in input.split(b'\n') {
            let line = decode(line?, "standard input")?;
            sql.push_str(line.strip_suffix('\r').unwrap_or(&line));
            sql.push('\n');
            if is_quit(&sql) {
                return Ok(());
            }
            // Without a semicolon in the line, nothing ends here: a long statement is not scanned again at each line.
            if line.contains(';') && is_complete(&sql, &self.options().sql_parser)? {
                runtime.block_on(self.run(&std::mem::take(&mut sql)))?;
            }
        }
        runtime.block_on(self.run(&sql))
    }

    /// Reads statements from the terminal until its end; one that fails does not end the session.
    fn interact(&self, runtime: &Runtime) -> Result<()> {
        let mut editor = DefaultEditor::new().map_err(terminal_error)?;
        let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".wae_history"));
        if let Some(history) = &history {
            // There is none before the first session.
            let _ = editor.load_history(history);
        }
        let mut sql = String::new();
        loop {
            match editor.readline(if sql.is_empty() { "wae> " } else { "...> " }) {
                Ok(line) => sql.push_str(&line),
                Err(ReadlineError::Interrupted) => {
                    sql.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(terminal_error(error)),
            }
            if is_quit(&sql) {
                break;
            }
            if !is_complete(&sql, &self.options().sql_parser)? {
                sql.push('\n');
                continue;
            }
            let statement = std::mem::take(&mut sql);
            editor.add_history_entry(statement.trim()).map_err(terminal_error)?;
            if let Err(error) = runtime.block_on(self.run(&statement)) {
                eprintln!("{}", error.strip_backtrace());
            }
        }
        if let Some(history) = &history
            && let Err(error) = editor.save_history(history)
        {
            log::warn!("{}: {error}", history.display());
        }
        Ok(())
    }

    /// The session's options, as the last statement left them.
    fn options(&self) -> Arc<ConfigOptions> {
        Arc::clone(self.ctx.state().config_options())
    }

    /// Runs the statements of a text in turn, up to the first that fails or to Ctrl-C.
    async fn run(&self, sql: &str) -> Result<()> {
        let mut script = Script::new(sql);
        loop {
            let statements = script.take(&self.options().sql_parser)?;
            if statements.is_empty() {
                return Ok(());
            }
            for statement in statements {
                let planned = OnceCell::new();
                tokio::select! {
                    result = guarded(self.run_statement(statement, &planned)) => result?,
                    // The query is dropped by now, and a training of it stops as soon as its batch is done.
                    _ = tokio::signal::ctrl_c() => return cancelled(planned.get().and_then(WaeTrainExec::find)).await,
                }
            }
        }
    }

    /// Runs a statement, and keeps its plan, which knows how far a training came.
    async fn run_statement(&self, statement: Statement, planned: &OnceCell<Arc<dyn ExecutionPlan>>) -> Result<()> {
        let plan = self.ctx.state().statement_to_plan(statement).await?;
        let frame = self.ctx.execute_logical_plan(plan).await?;
        let context = Arc::new(frame.task_ctx());
        let plan = frame.create_physical_plan().await?;
        let plan = planned.get_or_init(|| plan);
        let mut stream = execute_stream(Arc::clone(plan), context)?;
        let progress = Progress::try_new(plan);
        let mut output = Output::new(self.format, self.options().format.clone(), stream.schema());
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                batch = stream.next() => match batch {
                    Some(batch) => output.write(batch?)?,
                    None => break,
                },
                _ = tick.tick() => if let Some(progress) = &progress { progress.show() },
            }
        }
        drop(progress);
        output.finish()
    }
}

/// Runs a statement to its end or to a panic, which the planning of some statements can come to below us: in DataFusion
/// 55, `EXECUTE q([0.5, 1])` is one. Nothing of a statement is kept after it, so that the session can go on.
async fn guarded(statement: impl Future<Output = Result<()>>) -> Result<()> {
    AssertUnwindSafe(statement).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref().copied());
        let line = text.and_then(|text| text.lines().next()).unwrap_or("no reason given");
        exec_err!("a library that runs the statement has failed: {line}")
    })
}

/// Waits until a training has stopped, at most to the next Ctrl-C, and says whether a model or a checkpoint is left.
async fn cancelled(training: Option<&WaeTrainExec>) -> Result<()> {
    let Some(training) = training else { return exec_err!("cancelled") };
    tokio::select! {
        () = training.stopped() => {}
        _ = tokio::signal::ctrl_c() => return exec_err!("cancelled before the batch was done"),
    }
    let model = training.model();
    let epochs = training.epochs();
    match training.checkpoint() {
        _ if training.is_saved() => exec_err!("cancelled: model '{model}' is saved"),
        Some(epoch) => exec_err!(
            "cancelled: the checkpoint of epoch {epoch} of {epochs} of model '{model}' stays, and the same statement with \
             resume => true goes on from there"
        ),
        None => exec_err!("cancelled: model '{model}' was not saved, and there is no checkpoint to go on from"),
    }
}

fn terminal_error(error: ReadlineError) -> datafusion::common::DataFusionError {
    exec_datafusion_err!("terminal: {error}")
}

/// Whether a text asks to leave the shell.
fn is_quit(sql: &str) -> bool {
    matches!(sql.trim(), "\\q" | "exit" | "quit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_arguments() {
        let arguments = Arguments::parse_from(["wae", "-c", "SELECT 1", "SELECT 2", "--format", "json"]);
        assert_eq!((arguments.commands.len(), arguments.format), (2, Format::Json));
        Arguments::try_parse_from(["wae", "-c", "SELECT 1", "-f", "x.sql"]).unwrap_err();

        let given = ["wae", "-c", "-- nothing", "--\tmore = 1", "SELECT 1", "--format=csv"].map(OsString::from);
        let arguments = Arguments::parse_from(given.map(as_statement));
        assert_eq!(arguments.commands, [" -- nothing", " --\tmore = 1", "SELECT 1"]);
        assert_eq!(arguments.format, Format::Csv);
        let arguments = Arguments::parse_from(["wae", "report", "--model", "m", "--source", "t", "-c", "SET a = 1"]);
        assert!(matches!(arguments.task, Some(Task::Report(report)) if report.commands == ["SET a = 1"]));
        Arguments::try_parse_from(["wae", "report", "--model", "m", "--source", "t", "--alpha", "1"]).unwrap_err();
        assert_eq!(as_statement("--file=my statements.sql".into()), "--file=my statements.sql");
    }
}
