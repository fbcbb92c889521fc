//! The pretrained network of a training: found and checked at planning, its weights read when the training runs.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use wae_core::config::BackboneChoice;
use wae_core::{ImageShape, TrainOptions};

use super::{NAME, TrainCall};
use crate::error::{exec_error, plan_error};
use crate::options::WaeOptions;
use crate::weights;

/// Finds the network that the options name, and checks that the training can be done with it.
///
/// # Errors
/// A plan error if there is no such network below `wae.weights_dir`, if it has no such layer or takes no images of the
/// size, and if the model's file would be larger than `wae.max_model_bytes`.
pub(super) fn resolve_backbone(train: &mut TrainOptions, session: &WaeOptions) -> Result<()> {
    let Some(named) = &train.backbone else { return Ok(()) };
    let device = train.device.unwrap_or_else(|| session.device());
    let network = weights::load(NAME, named.name(), device, session)?;
    let (name, _) = weights::split_version(named.name());
    train.backbone = Some(BackboneChoice::named(name).with_network(network));
    // Of images of any shape, all of the configuration follows from the network.
    let config = train.config(ImageShape::new(1, 1, 3)).map_err(|e| plan_error(NAME, &e))?;
    let extractor = train.extractor().map_err(|e| plan_error(NAME, &e))?;
    let network = extractor.filter(|_| train.embed).map_or(0, |extractor| extractor.file_bytes());
    let own = config.parameters().saturating_mul(size_of::<f32>());
    let most = session.max_model_bytes();
    if network > 0 && network.saturating_add(own) > most {
        return plan_err!(
            "{NAME}: the model has {own} bytes, and the backbone's weights up to the layer {network}, and a model's file \
             at most {most} (wae.max_model_bytes): raise it, or leave the weights out with embed => false"
        );
    }
    Ok(())
}

impl TrainCall {
    /// Reads the weights of the network, which the model's file will hold a part of.
    ///
    /// # Errors
    /// An execution error if they were replaced since the query was planned.
    pub(super) fn read_weights(&mut self) -> Result<()> {
        let Some(choice) = self.train.backbone.take_if(|_| self.train.embed) else { return Ok(()) };
        let weights = Arc::new(weights::read_all(NAME, choice.name(), &self.session)?);
        self.train.backbone = Some(choice.with_weights(weights).map_err(|e| exec_error(NAME, &e))?);
        Ok(())
    }

    /// Refuses images that the network cannot see, as far as their type tells.
    pub(super) fn check_colours(&self, shape: ImageShape) -> Result<()> {
        let Some(choice) = self.train.backbone.as_ref().filter(|_| shape.channels() != 3) else { return Ok(()) };
        plan_err!("{NAME}: images have shape {shape}, backbone '{}' takes red, green and blue", choice.name())
    }

    /// Writes the network's part of a plan that is shown.
    pub(super) fn describe_backbone(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(Some(extractor)) = self.train.extractor() else { return Ok(()) };
        let name = self.train.backbone.as_ref().map_or("", BackboneChoice::name);
        let network = extractor.backbone();
        let weights = weights::versioned(name, network.sha256());
        write!(f, ", backbone={weights}, layer={}, ", extractor.layer())?;
        if let Some((height, width)) = extractor.crop() {
            write!(f, "centre {height} × {width}, ")?;
        }
        write!(f, "{}: {}", network.family(), network.preprocessing().resized(Some(extractor.size())))
    }
}
