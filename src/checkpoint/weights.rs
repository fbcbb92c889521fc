//! The tensors of the model itself.

use std::collections::BTreeMap;

use safetensors::tensor::SafeTensors;

use super::format::{broken, values};
use super::{TensorData, Tensors};
use crate::error::{Error, Result};

/// The tensors of the network, whose names and shapes have been checked.
pub(super) fn read_weights(file: &SafeTensors<'_>, expected: BTreeMap<String, Vec<usize>>) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, shape) in expected {
        let values = values(&name, &file.tensor(&name).map_err(broken)?)?;
        if name.ends_with("running_var") && values.iter().any(|v| *v < 0.0) {
            return Err(Error::model_tensor(name, "has a negative variance"));
        }
        tensors.insert(name, TensorData { shape, values });
    }
    Ok(tensors)
}
