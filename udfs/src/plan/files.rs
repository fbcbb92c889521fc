//! The rule of files: all files of a table say the same of its images.
//!
//! DataFusion merges the schemas of a folder's files. Lists of a file that says nothing of their axes are then read by
//! the tensor type that another file names. So before a scan runs, what each of its files says of the images that are
//! read is compared with what the table says.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectMeta, ObjectStore};
use wae_core::image::ImageType;

use super::origins::Origins;
use crate::columns::list_item;
use crate::scalar::planned_image::TensorType;
use crate::waiting::wait_for;

/// The rule.
#[derive(Debug)]
pub(crate) struct FileLayouts {
    runtime: Arc<RuntimeEnv>,
}

impl FileLayouts {
    /// The rule of a session, whose object stores and cache of files' metadata it takes.
    pub(crate) fn new(runtime: Arc<RuntimeEnv>) -> Self {
        Self { runtime }
    }

    fn check(&self, scan: &FileScanConfig, config: &ConfigOptions) -> Result<()> {
        let tensors = tensors(scan);
        let Some(format) = format_of(scan).filter(|_| !tensors.is_empty()) else { return Ok(()) };
        let files = scan.file_groups.iter().flat_map(|group| group.iter());
        let files: BTreeMap<_, _> =
            files.map(|file| (file.object_meta.location.clone(), file.object_meta.clone())).collect();
        let state = SessionStateBuilder::new().with_config(SessionConfig::from(config.clone()));
        let schemas = Schemas {
            format,
            state: state.with_runtime_env(Arc::clone(&self.runtime)).build(),
            store: self.runtime.object_store(&scan.object_store_url)?,
            url: scan.object_store_url.clone(),
        };
        wait_for(Arc::new(schemas).check(files.into_values().collect(), tensors)).map_err(DataFusionError::from)?
    }
}

impl PhysicalOptimizerRule for FileLayouts {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.apply(|node| {
            let scan = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
            if let Some(scan) = scan.and_then(|scan| scan.downcast_ref::<FileScanConfig>()) {
                self.check(scan, config)?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "wae_file_layouts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The columns that a scan reads and that hold tensors, as fields of the table.
fn tensors(scan: &FileScanConfig) -> Vec<FieldRef> {
    let read = scan.file_source().projection().map(|projection| projection.column_indices());
    let is_read = |index| read.as_ref().is_none_or(|read| read.contains(&index));
    let fields = scan.file_schema().fields().iter().enumerate();
    fields
        .filter(|(index, field)| is_read(*index) && holds_tensors(field))
        .map(|(_, field)| Arc::clone(field))
        .collect()
}

fn holds_tensors(field: &Field) -> bool {
    let is_nested = |field: &FieldRef| holds_tensors(field);
    tensor_of(field).is_some()
        || list_item(field.data_type()).is_some_and(is_nested)
        || matches!(field.data_type(), DataType::Struct(fields) if fields.iter().any(is_nested))
}

/// The tensor type of a field that holds images in lists or structs.
fn tensor_of(field: &Field) -> Option<TensorType> {
    let is_image = field.data_type().is_nested() && ImageType::try_new(field).is_ok();
    TensorType::of(field.metadata()).filter(|_| is_image)
}

/// The format of a scan's files, if their schemas can name tensor types.
fn format_of(scan: &FileScanConfig) -> Option<Arc<dyn FileFormat>> {
    let source = scan.file_source();
    match source.file_type() {
        "parquet" => {
            let mut options = source.downcast_ref::<ParquetSource>()?.table_parquet_options().clone();
            options.global.skip_metadata = false;
            Some(Arc::new(ParquetFormat::default().with_options(options)))
        }
        "arrow" | "arrow_stream" => Some(Arc::new(ArrowFormat)),
        _ => None,
    }
}

/// The schemas of a table's files.
struct Schemas {
    format: Arc<dyn FileFormat>,
    state: SessionState,
    store: Arc<dyn ObjectStore>,
    url: ObjectStoreUrl,
}

impl Schemas {
    /// Checks that all files say of these columns what the table says.
    async fn check(self: Arc<Self>, files: Vec<ObjectMeta>, tensors: Vec<FieldRef>) -> Result<()> {
        let at_once = self.state.config_options().execution.meta_fetch_concurrency.get();
        let read = |file: ObjectMeta| {
            let this = Arc::clone(&self);
            async move {
                let schema = this.format.infer_schema(&this.state, &this.store, slice::from_ref(&file)).await?;
                Ok::<_, DataFusionError>((this.path(&file), schema))
            }
        };
        let mut schemas = stream::iter(files).map(read).buffered(at_once).boxed();
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        while let Some((path, schema)) = schemas.try_next().await? {
            for table in &tensors {
                let Ok(file) = schema.field_with_name(table.name()) else { continue };
                compare(table, file, table.name().clone(), &mut |column, tensor, said, agrees| {
                    found.entry(column).or_insert_with(|| Found::new(tensor)).add(&path, said, agrees);
                });
            }
        }
        found.iter().try_for_each(|(column, found)| found.check(column))
    }

    /// The path of a local file, or the URL of another.
    fn path(&self, file: &ObjectMeta) -> String {
        let root = self.url.as_str();
        format!("{}{}", if root == "file:///" { "/" } else { root }, file.location)
    }
}

/// Calls a function for each tensor in a column, with its name, its type in the table and in a file, and whether both
/// are of one layout.
fn compare(
    table: &Field,
    file: &Field,
    name: String,
    found: &mut impl FnMut(String, TensorType, Option<TensorType>, bool),
) {
    if file.data_type().is_null() {
        return;
    }
    if let Some(tensor) = tensor_of(table) {
        let said = TensorType::of(file.metadata());
        let of_file = said.clone().map_or_else(Origins::unnamed, Origins::named);
        let agrees = Origins::named(tensor.clone()).union(of_file).agreed(table.data_type()).is_ok();
        found(name, tensor, said, agrees);
    } else if let (Some(table), Some(file)) = (list_item(table.data_type()), list_item(file.data_type())) {
        compare(table, file, name, found);
    } else if let (DataType::Struct(table), DataType::Struct(of_file)) = (table.data_type(), file.data_type()) {
        for child in table {
            if let Some(file) = of_file.iter().find(|field| field.name() == child.name()) {
                compare(child, file, format!("{name}.{}", child.name()), found);
            }
        }
    }
}

/// The files that say different things of a table's tensors.
struct Found {
    /// The table's type.
    tensor: TensorType,
    /// The first file that names the table's layout, and its type.
    named: Option<(String, TensorType)>,
    /// The first file that does not, and the type that it names.
    other: Option<(String, Option<TensorType>)>,
}

impl Found {
    fn new(tensor: TensorType) -> Self {
        Self { tensor, named: None, other: None }
    }

    fn add(&mut self, path: &str, said: Option<TensorType>, agrees: bool) {
        match said {
            Some(said) if agrees => drop(self.named.get_or_insert_with(|| (path.to_owned(), said))),
            said if !agrees => drop(self.other.get_or_insert_with(|| (path.to_owned(), said))),
            _ => {}
        }
    }

    fn check(&self, column: &str) -> Result<()> {
        let Some((other, said)) = &self.other else { return Ok(()) };
        let named = match &self.named {
            Some((path, said)) => format!("'{path}' says {said}"),
            None => format!("the table says {}", self.tensor),
        };
        let other = match said {
            Some(said) => format!("'{other}' says {said}"),
            None => format!("'{other}' names no tensor type"),
        };
        plan_err!(
            "column '{column}': the files of the table have images of different layouts, expected one: {named}, and \
             {other}. Read the files one by one and unite them by UNION ALL, each brought to one shape first, as in \
             image_decode(image, height, width, channels [, layout])"
        )
    }
}
