//! The model of a call: the version that planning pinned, or that of its argument.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl};

use crate::columns::constant;
use crate::models::argument::{default_model, is_placeholder, literal_model};
use crate::models::{self, LoadedModel};
use crate::options::WaeOptions;
use crate::scalar::args::PlannedArgs;
use crate::scalar::function::KernelFunction;
use crate::scalar::scores;

impl KernelFunction {
    /// The position of the model among the arguments of a call.
    fn model_position(&self, fields: &[FieldRef]) -> Option<usize> {
        self.kernel.model_position(fields.len(), &|i| fields[i].data_type().is_string())
    }

    /// The model of a call, or `None` for a function over none, and for a prepared parameter that has no value yet.
    pub(super) fn planned_model(&self, args: &ReturnFieldArgs<'_>) -> Result<Option<Arc<LoadedModel>>> {
        let function = self.name();
        if let Some(pin) = &self.pinned {
            return pin.model(function).map(Some);
        }
        let Some(position) = self.model_position(args.arg_fields) else { return Ok(None) };
        let value = args.scalar_arguments.get(position).copied().flatten();
        let name = match (args.arg_fields.get(position), value) {
            (None, _) => default_model(function, &self.options)?,
            (Some(_), Some(value)) => literal_model(function, value)?,
            (Some(field), None) if is_placeholder(field) => return Ok(None),
            (Some(field), None) => {
                return plan_err!(
                    "{function}: model must be a string literal or a prepared parameter, got an expression of type {}",
                    field.data_type()
                );
            }
        };
        models::load(function, name, &self.options).map(Some)
    }

    /// The model of a call that runs: the pinned one, or that of its argument; `None` for a function over none.
    pub(super) fn invoked_model(
        &self,
        args: &ScalarFunctionArgs,
        literals: &[Option<&ScalarValue>],
        options: &WaeOptions,
    ) -> Result<Option<Arc<LoadedModel>>> {
        let function = self.name();
        if let Some(pin) = &self.pinned {
            return pin.model(function).map(Some);
        }
        let Some(position) = self.model_position(&args.arg_fields) else { return Ok(None) };
        let model = match args.args.get(position) {
            None => models::load(function, default_model(function, options)?, options)?,
            Some(ColumnarValue::Scalar(value)) => models::load(function, literal_model(function, value)?, options)?,
            // Functions called through the C interface get every argument as an array.
            Some(ColumnarValue::Array(array)) => {
                let value = constant(function, "model", array)?;
                models::load(function, literal_model(function, &value)?, options)?
            }
        };
        let score = scores::default_score(Some(&model), options);
        let documentation = self.kernel.documentation();
        let planned = PlannedArgs::new(documentation, &args.arg_fields, literals, Some(&model), score, options);
        // Planning checked the arguments against the model of then: with another type, or where they do not fit, it is
        // another.
        let is_planned =
            self.kernel.field(&planned).is_ok_and(|field| field.data_type() == args.return_field.data_type());
        if !is_planned {
            return exec_err!("{function}: model '{}' was replaced by another while the query ran", model.name());
        }
        Ok(Some(model))
    }
}
