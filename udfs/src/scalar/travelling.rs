//! A call on its way to another node: the bytes beside the function's name and its arguments.

use std::collections::BTreeMap;

use datafusion::common::{Result, plan_datafusion_err};
use datafusion::logical_expr::ScalarUDFImpl;
use serde::{Deserialize, Serialize};

use crate::models::pin::{Message, Pin, without_version};
use crate::options::WaeOptions;
use crate::scalar::function::KernelFunction;
use crate::scalar::planned_image::PlannedImage;
use crate::weights::PinnedNetwork;

/// The parts of a call that travel to another node beside its name and its arguments.
#[derive(Debug, Default, Serialize, Deserialize)]
struct TravellingCall {
    pin: Option<Message>,
    /// The options of a call without a model's version, which has them otherwise.
    #[serde(default)]
    options: BTreeMap<String, String>,
    image: PlannedImage,
    path: bool,
    #[serde(default)]
    literals: Option<u32>,
}

impl KernelFunction {
    /// Bytes that a call carries to another node, beside the function's name: the model's version or the options,
    /// the image's type, whether the image has a path, and which arguments were literals. None for a call that no
    /// planning has seen.
    pub(crate) fn encode(&self) -> Vec<u8> {
        if self.pinned.is_none() && !self.image.is_planned() {
            return Vec::new();
        }
        let pin = self.pinned.as_ref().map(Pin::message);
        let options = if pin.is_none() { self.options.to_message() } else { BTreeMap::new() };
        let call = TravellingCall { pin, options, image: self.image.clone(), path: self.path, literals: self.literals };
        // Strings as keys and values: writing them cannot fail.
        serde_json::to_vec(&call).unwrap_or_default()
    }

    /// The function of a call that came from another node with these bytes.
    ///
    /// # Errors
    /// A plan error if they cannot be read, or if a function over a model came without the version of its model.
    pub(crate) fn decode(self, bytes: &[u8]) -> Result<Self> {
        let call = match bytes {
            [] => Ok(TravellingCall::default()),
            bytes => serde_json::from_slice(bytes),
        };
        let TravellingCall { pin, options, image, path, literals } = call.map_err(|e| match self.is_over_model() {
            true => without_version(self.name(), &e),
            false => plan_datafusion_err!(
                "{}: the call cannot be read ({e}), expected one that a node with this version of the plugin planned",
                self.name()
            ),
        })?;
        let mut function = self.of_image(image, path);
        function.literals = literals;
        match pin {
            Some(message) => Ok(function.pin(Pin::of_message(message)?)),
            None if function.is_over_model() => Err(without_version(function.name(), &"none came")),
            None => {
                function.options = WaeOptions::of_message(&options)?;
                Ok(function.with_network(PinnedNetwork::travelled()))
            }
        }
    }
}
