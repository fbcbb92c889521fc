//! The progress of a training on the terminal.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion_wae::WaeTrainExec;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on the terminal while a plan trains a model.
pub(crate) struct Progress {
    plan: Arc<dyn ExecutionPlan>,
    bar: ProgressBar,
}

impl Progress {
    /// `None` where nothing trains or nobody watches.
    pub(crate) fn try_new(plan: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let training = WaeTrainExec::find(plan).filter(|_| io::stderr().is_terminal())?;
        let bar = ProgressBar::new(training.epochs() as u64);
        if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} epochs, {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(format!("training '{}'", training.model()));
        Some(Self { plan: Arc::clone(plan), bar })
    }

    pub(crate) fn show(&self) {
        if let Some(training) = WaeTrainExec::find(&self.plan) {
            self.bar.set_position(training.epochs_done() as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
