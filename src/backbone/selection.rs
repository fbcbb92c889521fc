//! Layers as a user asks for them: one, or several joined by `+`.

use super::FeatureShape;
use super::family::{FrozenNetwork, Kept};
use crate::error::{Error, Result};
use crate::ops::Tensor;
use crate::ops::frozen::resize_bilinear;
use crate::shape::ImageShape;

/// The most layers that are joined.
const MAX_LAYERS: usize = 16;

/// One layer of a network, or several whose channels are joined, maps resized to the largest of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSelection {
    /// Indices of the network's layers, in the order asked for.
    layers: Vec<usize>,
    name: String,
}

impl LayerSelection {
    /// The layers of a text such as `layer2+layer3`; spaces around names do not count.
    pub(super) fn parse(network: &dyn FrozenNetwork, text: &str) -> Result<Self> {
        let names = network.layers();
        let mut layers = Vec::new();
        for name in text.split('+').map(str::trim) {
            let found = names.iter().position(|known| known == name);
            let layer = found.ok_or_else(|| {
                Error::Config(format!("there is no layer '{name}', expected one or several joined by '+' of {names:?}"))
            })?;
            if layers.contains(&layer) {
                return Err(Error::Config(format!("layer '{name}' stands twice in '{text}'")));
            }
            layers.push(layer);
        }
        if layers.len() > MAX_LAYERS {
            return Err(Error::Config(format!("{} layers in '{text}', expected at most {MAX_LAYERS}", layers.len())));
        }
        let name = layers.iter().map(|layer| names[*layer].as_str()).collect::<Vec<_>>().join("+");
        let selection = Self { layers, name };
        // Whether layers go together does not depend on the size.
        selection.join_shapes(|layer| network.shape_of(layer, (1, 1)))?;
        Ok(selection)
    }

    /// The layers, as [`super::Backbone::layer_selection`] reads them.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// The shape of the joined layers, from that of each.
    pub(super) fn join_shapes(&self, shape: impl Fn(usize) -> FeatureShape) -> Result<FeatureShape> {
        let mut shapes = self.layers.iter().map(|layer| shape(*layer));
        let first = shapes.next().ok_or_else(|| Error::Config("no layer was named".to_owned()))?;
        shapes.try_fold(first, |joined, next| match (joined, next) {
            (FeatureShape::Map(a), FeatureShape::Map(b)) => {
                let channels = a.channels() + b.channels();
                Ok(FeatureShape::Map(larger(a, b).with_channels(channels)))
            }
            (FeatureShape::Vector(a), FeatureShape::Vector(b)) => Ok(FeatureShape::Vector(a + b)),
            _ => Err(Error::Config(format!("'{}' joins maps and vectors, expected layers of one kind", self.name))),
        })
    }

    /// The joined values of layers that have been computed: (N, h, w, C) or (N, C).
    pub(super) fn join(&self, kept: &Kept, shape: FeatureShape) -> Result<Tensor> {
        let layers = self.layers.iter().map(|layer| {
            let values = kept.get(*layer)?;
            match shape {
                FeatureShape::Map(map) => resize_bilinear(values, (map.height(), map.width())),
                FeatureShape::Vector(_) => Ok(values.clone()),
            }
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        match layers.as_slice() {
            [one] => Ok(one.clone()),
            several => Ok(Tensor::cat(several, several.first().map_or(1, Tensor::rank) - 1)?),
        }
    }
}

/// The one of two maps that has more places.
fn larger(a: ImageShape, b: ImageShape) -> ImageShape {
    if b.height() * b.width() > a.height() * a.width() { b } else { a }
}
