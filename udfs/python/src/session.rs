//! A session: DataFusion with everything registered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion_wae::ReportOptions;
use pyo3::prelude::*;

use crate::error::python_error;
use crate::query::Query;
use crate::runtime::{runtime, wait};
use crate::source::PythonTable;
use crate::train::Training;

/// The session behind `datafusion_wae.SessionContext`.
#[pyclass(module = "datafusion_wae._internal", frozen)]
pub(crate) struct Session {
    ctx: SessionContext,
    /// Names given to sources of trainings so far.
    sources: AtomicUsize,
}

#[pymethods]
impl Session {
    #[new]
    fn new() -> PyResult<Self> {
        let _guard = runtime()?.enter();
        let ctx = datafusion_wae::session_context().map_err(|e| python_error(&e))?;
        Ok(Self { ctx, sources: AtomicUsize::new(0) })
    }

    /// Plans a statement, and runs it if it is not a query.
    fn sql(&self, text: &str) -> PyResult<Query> {
        let planned = wait(plan(self.ctx.clone(), text.to_owned()))?;
        let (frame, schema) = planned.map_err(|e| python_error(&e))?;
        Ok(Query::new(frame, schema))
    }

    /// Makes a table of a query or of Arrow data.
    fn register(&self, name: &str, source: &Bound<'_, PyAny>) -> PyResult<()> {
        self.register_table(name, provider(name, source)?).map_err(|e| python_error(&e))
    }

    /// Plans a training on a table or file by its name, a query, or Arrow data.
    fn train(&self, source: &Bound<'_, PyAny>, model: &str, options: &str) -> PyResult<Training> {
        if let Ok(name) = source.extract::<String>() {
            return self.plan_training(&literal(&name), model, options);
        }
        let name = format!("__wae_source_{}", self.sources.fetch_add(1, Ordering::Relaxed));
        let table = provider("the source of a training", source)?;
        self.register_table(&name, table).map_err(|e| python_error(&e))?;
        let training = self.plan_training(&literal(&name), model, options);
        // The plan holds the table; its name is not needed any more.
        self.ctx.deregister_table(name.as_str()).map_err(|e| python_error(&e))?;
        training
    }

    /// Makes a report's page.
    #[pyo3(signature = (model, source, image, label, alpha))]
    fn report(
        &self,
        model: String,
        source: String,
        image: String,
        label: Option<String>,
        alpha: Option<f64>,
    ) -> PyResult<String> {
        let ctx = self.ctx.clone();
        let options = ReportOptions { image, label, alpha };
        let html = wait(async move { datafusion_wae::report(&ctx, &model, &source, &options).await })?;
        Ok(html.map_err(|e| python_error(&e))?.to_string())
    }
}

impl Session {
    /// Registers a table in the place of one of that name.
    fn register_table(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        let name = TableReference::from(name);
        self.ctx.deregister_table(name.clone())?;
        self.ctx.register_table(name, table)?;
        Ok(())
    }

    fn plan_training(&self, source: &str, model: &str, options: &str) -> PyResult<Training> {
        let (model, options) = (literal(model), literal(options));
        let text = format!("SELECT * FROM wae_train({source}, {model}, {options})");
        let ctx = self.ctx.clone();
        let planned = wait(async move {
            let frame = ctx.sql(&text).await?;
            let context = Arc::new(frame.task_ctx());
            Ok::<_, DataFusionError>((frame.create_physical_plan().await?, context))
        });
        let (plan, context) = planned?.map_err(|e| python_error(&e))?;
        Ok(Training::new(plan, context))
    }
}

/// A text as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A statement's plan, and the columns that its rows will have. `SET` and `CREATE` have run then, and so have `COPY`
/// and `INSERT`, whose rows are the number of rows written.
async fn plan(ctx: SessionContext, text: String) -> Result<(DataFrame, SchemaRef)> {
    let mut frame = ctx.sql(&text).await?;
    if matches!(frame.logical_plan(), LogicalPlan::Dml(_) | LogicalPlan::Copy(_)) {
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let rows = frame.collect().await?;
        let schema = rows.first().map_or(schema, |batch| batch.schema());
        let table = MemTable::try_new(schema, vec![rows])?;
        frame = ctx.read_table(Arc::new(table))?;
    }
    // What the physical planner refuses is an error of this statement, not of whoever reads its rows.
    let schema = frame.clone().create_physical_plan().await?.schema();
    Ok((frame, schema))
}

/// A table of what Python hands over. A query of ours stays a plan, so that its rows are computed as part of the
/// statement that reads them.
fn provider(name: &str, source: &Bound<'_, PyAny>) -> PyResult<Arc<dyn TableProvider>> {
    if let Ok(query) = source.cast::<Query>() {
        return Ok(query.get().frame.clone().into_view());
    }
    Ok(Arc::new(PythonTable::try_new(name, source)?))
}
