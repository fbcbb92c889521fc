//! The source of a table function: a subquery or a table, of which it reads the one column of images.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, Result, TableReference, plan_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::expressions;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;
use wae_core::config::InputChoice;
use wae_core::image::ImageType;
use wae_core::{Config, TrainOptions};

use crate::columns::{features_type, image_type, list_item};
use crate::files;
use crate::plan::{path_beside, planned_image};
use crate::scalar::planned_image::PlannedImage;
use crate::table::function::Argument;

/// The description of the argument.
pub(crate) const SOURCE_ARGUMENT: &str =
    "A subquery with one column of images (or of features), or a table's or file's name as a string.";

/// The kind of column that a function reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    Images,
    Features,
}

impl Columns {
    /// Those that a model takes.
    pub(crate) fn of(config: &Config) -> Self {
        if config.row_input().is_some() { Self::Features } else { Self::Images }
    }

    /// Those that options train on.
    pub(crate) fn trained_on(options: &TrainOptions) -> Self {
        match options.row_input() {
            InputChoice::Image => Self::Images,
            InputChoice::Features => Self::Features,
        }
    }

    /// The images or features that a field holds, or a message that says what holds them.
    pub(crate) fn read(self, field: &Field) -> Result<ImageType, String> {
        match self {
            Self::Images => image_type(field),
            Self::Features => features_type(field),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Features => "features",
        }
    }
}

/// The source of images or features.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    origin: Origin,
    columns: Columns,
}

/// Where the rows come from.
#[derive(Debug, Clone)]
enum Origin {
    /// A subquery.
    Plan(LogicalPlan),
    /// A table's name, or a file's path, looked up when the plan is made: looking up needs an async context.
    Table(String),
}

impl Source {
    /// The source that the argument `source` of a call names.
    ///
    /// # Errors
    /// A plan error if there is none, or if it is a subquery without such a column.
    pub(crate) fn try_new(function: &str, source: Option<Argument>, columns: Columns) -> Result<Self> {
        let origin = match source {
            Some(Argument::Plan(plan)) => {
                image_column(function, plan.schema(), columns)?;
                Origin::Plan(plan)
            }
            Some(argument) => match argument.text() {
                Some(name) => Origin::Table(name.to_owned()),
                None => return plan_err!("{function}: source must be a subquery or a table's name, got {argument}"),
            },
            None => return plan_err!("{function}: no source given, expected a subquery or a table's name"),
        };
        Ok(Self { origin, columns })
    }

    /// The images, in one partition.
    ///
    /// # Errors
    /// A plan error if there is no such table, or no such column, or if its images are laid out in several ways.
    pub(crate) async fn images(&self, function: &str, state: &dyn Session) -> Result<SourceImages> {
        let source = self.logical_plan(function, state).await?;
        let image = image_column(function, source.schema(), self.columns)?;
        let image_type = planned_image(function, &image, &[&source])?;
        let (source, image) = with_paths(source, image);
        let columns = [Some(image.clone()), path_beside(&image, &[&source], source.schema())];
        let source = LogicalPlanBuilder::from(source).project(columns.into_iter().flatten())?.build()?;
        let plan = one_partition(state.create_physical_plan(&source).await?);
        Ok(SourceImages { plan, image_type })
    }

    async fn logical_plan(&self, function: &str, state: &dyn Session) -> Result<LogicalPlan> {
        let name = match &self.origin {
            Origin::Plan(plan) => return Ok(plan.clone()),
            Origin::Table(name) => name,
        };
        let catalog = &state.config_options().catalog;
        // A path is no dotted name; where a file has the name's text, it is meant.
        let reference = if Path::new(name).exists() || name.contains('/') {
            TableReference::bare(name.as_str())
        } else {
            TableReference::parse_str(name)
        };
        let resolved = reference.resolve(&catalog.default_catalog, &catalog.default_schema);
        let schema = state.catalog_list().catalog(&resolved.catalog).and_then(|c| c.schema(&resolved.schema));
        let table = match schema {
            Some(schema) => schema.table(&resolved.table).await?,
            None => None,
        };
        let Some(table) = table else {
            let missing = || match name.split_whitespace().next().map(str::to_ascii_lowercase).as_deref() {
                Some("select" | "with" | "values") => {
                    format!("the source is a query in quotes, expected one in parentheses: ({name})")
                }
                _ => format!("no table or file '{name}'"),
            };
            return plan_err!("{function}: {}", files::explain(name, state.config_options()).unwrap_or_else(missing));
        };
        LogicalPlanBuilder::scan(resolved.table.as_ref(), provider_as_source(table), None)?.build()
    }
}

/// The images of a source: the plan of a column of them, and after it one of their files' paths, if the source has such
/// a column.
#[derive(Debug, Clone)]
pub(crate) struct SourceImages {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    image_type: PlannedImage,
}

impl SourceImages {
    /// The same images of another plan.
    pub(crate) fn with_plan(&self, plan: Arc<dyn ExecutionPlan>) -> Self {
        Self { plan: one_partition(plan), image_type: self.image_type.clone() }
    }

    /// The columns, the images with the type that planning found.
    pub(crate) fn schema(&self) -> SchemaRef {
        let schema = self.plan.schema();
        match self.image_type.restore(schema.fields()) {
            Cow::Borrowed(_) => schema,
            Cow::Owned(fields) => Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
        }
    }

    /// Runs the plan.
    pub(crate) fn execute(&self, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let batches = self.plan.execute(0, context)?;
        let of_schema = Arc::clone(&schema);
        // Batches of a UNION's inputs have metadata of their own, and lists whose items are named otherwise.
        let batches = batches.map(move |batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_match_field_names(false);
            let options = options.with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&of_schema), batch.columns().to_vec(), &options)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// A source that selects its image from a plan that has the paths of the images' files, without that selection, and the
/// image there.
fn with_paths(source: LogicalPlan, image: Expr) -> (LogicalPlan, Expr) {
    let LogicalPlan::Projection(node) = &source else { return (source, image) };
    let Expr::Column(column) = &image else { return (source, image) };
    let selected = node.schema.maybe_index_of_column(column).and_then(|index| node.expr.get(index));
    let Some(selected) = selected.map(|selected| selected.clone().unalias()) else { return (source, image) };
    let inputs = [node.input.as_ref()];
    let has_paths = path_beside(&image, &[&source], source.schema()).is_some();
    if has_paths || path_beside(&selected, &inputs, node.input.schema()).is_none() {
        return (source, image);
    }
    (node.input.as_ref().clone(), selected.alias(column.name()))
}

/// The paths of the files of a batch's images, if the source has them.
pub(crate) fn paths(batch: &RecordBatch) -> Option<ArrayRef> {
    batch.columns().get(1).cloned()
}

/// The one column of images, or features, of a source; its other columns, such as labels, are left alone.
fn image_column(function: &str, schema: &DFSchema, columns: Columns) -> Result<Expr> {
    let is_image = |field: &FieldRef| {
        let fields = [Arc::clone(field)];
        PlannedImage::default().restore(&fields).iter().all(|field| columns.read(field).is_ok())
    };
    let mut images: Vec<_> = schema.iter().filter(|(_, field)| is_image(field)).collect();
    let beside_numbers = images.iter().any(|(_, field)| !is_of_numbers(field));
    if columns == Columns::Images && images.len() > 1 && beside_numbers {
        images.retain(|(_, field)| !is_of_numbers(field));
    }
    let kind = columns.name();
    match (images.as_slice(), schema.fields().as_ref()) {
        ([image], _) => Ok(Expr::Column(Column::from(*image))),
        ([], [field]) => match columns.read(field) {
            Err(message) => plan_err!("{function}: source column '{}': {message}", field.name()),
            Ok(_) => plan_err!("{function}: source must have one column of {kind}"),
        },
        (images, _) => {
            let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let count = images.len();
            let names = names.join(", ");
            plan_err!("{function}: source must have one column of {kind}, got {count} among ({names}): select one")
        }
    }
}

/// Whether a column may hold labels, boxes or vectors as well as images: flat lists, and nested ones of wide integers.
fn is_of_numbers(field: &Field) -> bool {
    let mut leaf = field.data_type();
    while let Some(item) = list_item(leaf) {
        leaf = item.data_type();
    }
    let wide = leaf.is_integer() && !matches!(leaf, DataType::UInt8 | DataType::UInt16);
    let flat = image_type(field).is_ok_and(|image| image.is_flat());
    field.extension_type_name().is_none() && (flat || wide)
}

/// A plan with its partitions in one.
pub(crate) fn one_partition(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    if plan.output_partitioning().partition_count() > 1 { Arc::new(CoalescePartitionsExec::new(plan)) } else { plan }
}

/// The context in which a plan of images runs: it reads at most `rows` rows at a time. DataFusion's own batches are
/// 8,192 rows, of which some wait in each channel: hundreds of megabytes of images.
pub(crate) fn in_mini_batches(context: &Arc<TaskContext>, rows: usize) -> Arc<TaskContext> {
    let config = context.session_config();
    if config.batch_size() <= rows {
        return Arc::clone(context);
    }
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config.clone().with_batch_size(rows),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    ))
}

/// The columns of a plan that a scan asks for.
pub(crate) fn projected(
    plan: Arc<dyn ExecutionPlan>,
    schema: &SchemaRef,
    projection: Option<&Vec<usize>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(projection) = projection else { return Ok(plan) };
    let column = |index: &usize| {
        let name = schema.field(*index).name().clone();
        ProjectionExpr { expr: Arc::new(expressions::Column::new(&name, *index)), alias: name }
    };
    Ok(Arc::new(ProjectionExec::try_new(projection.iter().map(column).collect::<Vec<_>>(), plan)?))
}
