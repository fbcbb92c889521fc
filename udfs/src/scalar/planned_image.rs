//! The metadata of an image's field, as planning saw it.
//!
//! The shape of a tensor stands in its field's metadata. A plan that travels to another node loses the metadata of what
//! functions give, so that a function that takes its images' shape from there, having no model to take it from, keeps
//! it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::common::{Result, plan_datafusion_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarFunctionArgs, ScalarUDF};

/// The metadata of the image's field, once planning has read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct PlannedImage(Option<BTreeMap<String, String>>);

impl PlannedImage {
    /// Puts the metadata of a call's first argument into the call, if there is any and it is not there yet; `function`
    /// makes the function that holds it.
    pub(crate) fn pin(
        &self,
        args: Vec<Expr>,
        info: &SimplifyContext,
        function: impl FnOnce(Self) -> ScalarUDF,
    ) -> Result<ExprSimplifyResult> {
        if self.0.is_some() {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let Some(image) = args.first() else { return Ok(ExprSimplifyResult::Original(args)) };
        let (_, field) = image.to_field(info.schema().as_ref())?;
        if field.metadata().is_empty() {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let metadata = field.metadata().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let call = ScalarFunction::new_udf(Arc::new(function(Self(Some(metadata)))), args);
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(call)))
    }

    /// A call's arguments with the image's field as planning saw it.
    pub(crate) fn restore(&self, mut args: ScalarFunctionArgs) -> ScalarFunctionArgs {
        if let (Some(metadata), Some(field)) = (&self.0, args.arg_fields.first_mut())
            && field.metadata().is_empty()
        {
            let metadata: HashMap<_, _> = metadata.clone().into_iter().collect();
            *field = Arc::new(field.as_ref().clone().with_metadata(metadata));
        }
        args
    }

    /// The bytes that travel; nothing where planning knew nothing.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Strings as keys and values: writing them cannot fail.
        self.0.as_ref().map(|metadata| serde_json::to_vec(metadata).unwrap_or_default()).unwrap_or_default()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// A plan error if they are no metadata.
    pub(crate) fn decode(function: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let metadata = serde_json::from_slice(bytes).map_err(|e| {
            plan_datafusion_err!("{function}: the call came with an image's type that cannot be read: {e}")
        })?;
        Ok(Self(Some(metadata)))
    }
}
