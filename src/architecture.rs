//! The layers of a configuration, and the names, shapes and layouts of their tensors in a file.

mod layout;

use crate::config::{Config, Convolutions, EncoderKind, Network};
use crate::device::Precision;
use crate::kernels::Geometry;

/// The direction of a layer's convolution between its two grids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Convolution: large grid to small.
    Down,
    /// Transposed convolution: small grid to large.
    Up,
}

/// The operations behind a layer's convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Batch norm and ReLU.
    Norm,
    /// A bias and an activation.
    Bias(Activation),
}

/// The function behind a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x.
    Identity,
    /// max(0, x), with derivative 0 at 0.
    Relu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
}

/// The side of a linear layer that is a flattened image: a file has it as (C, H, W), this crate as (H, W, C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flattened {
    /// None: the layer is a convolution.
    Neither,
    /// None: the layer joins vectors.
    Vectors,
    /// The inputs: the first linear layer of the encoder reads a map.
    Inputs { pixels: usize, channels: usize },
    /// The outputs: a linear layer of the decoder writes a map.
    Outputs { pixels: usize, channels: usize },
}

/// One layer: a convolution (or a linear layer, which is one on a single pixel) and its tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// The prefix of its tensors' names, such as `encoder.0`.
    pub(crate) name: String,
    pub(crate) geometry: Geometry,
    pub(crate) direction: Direction,
    pub(crate) tail: Tail,
    flattened: Flattened,
}

/// The part that a tensor plays in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Weight,
    Bias,
    Gamma,
    Beta,
    RunningMean,
    RunningVariance,
}

impl Role {
    /// Whether the optimiser changes the tensor. Running statistics follow the batches instead.
    pub(crate) fn is_trained(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVariance)
    }
}

/// The encoder's, the decoder's and the discriminator's layers, first to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Architecture {
    pub(crate) encoder: Vec<LayerSpec>,
    pub(crate) decoder: Vec<LayerSpec>,
    /// Empty where the objective has none.
    pub(crate) adversary: Vec<LayerSpec>,
}

impl Architecture {
    /// # Source
    /// `golden/reference.py`, classes `Wae` and `Adversary`.
    pub(crate) fn new(config: &Config) -> Self {
        Self { encoder: encoder(config), decoder: decoder(config), adversary: adversary(config) }
    }

    /// All layers, the encoder's first.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &LayerSpec> {
        self.encoder.iter().chain(&self.decoder).chain(&self.adversary)
    }
}

fn encoder(config: &Config) -> Vec<LayerSpec> {
    match config.network() {
        Network::Convolutions(network) => convolutional_encoder(config, network),
        Network::Dense(widths) => dense_encoder(config, widths),
    }
}

fn convolutional_encoder(config: &Config, network: &Convolutions) -> Vec<LayerSpec> {
    let image = config.image();
    let mut grid = (image.height(), image.width());
    let mut channels = image.channels();
    let mut layers = Vec::with_capacity(network.encoder_channels.len() + 1);
    for (i, &width) in network.encoder_channels.iter().enumerate() {
        let geometry = Geometry::same(grid, (channels, width), network.kernel, 2);
        (grid, channels) = (geometry.small, width);
        layers.push(LayerSpec {
            name: format!("encoder.{i}"),
            geometry,
            direction: Direction::Down,
            tail: Tail::Norm,
            flattened: Flattened::Neither,
        });
    }
    let pixels = grid.0 * grid.1;
    let flattened = Flattened::Inputs { pixels, channels };
    layers.push(linear("encoder.head", (pixels * channels, head_width(config)), HEAD, flattened));
    layers
}

/// Linear layers over all values of a row, each with a norm, then the head.
fn dense_encoder(config: &Config, widths: &[usize]) -> Vec<LayerSpec> {
    let image = config.image();
    let mut flattened = Flattened::Inputs { pixels: image.height() * image.width(), channels: image.channels() };
    let mut inputs = image.len();
    let mut layers = Vec::with_capacity(widths.len() + 1);
    for (i, &width) in widths.iter().enumerate() {
        layers.push(linear(&format!("encoder.{i}"), (inputs, width), Tail::Norm, flattened));
        (inputs, flattened) = (width, Flattened::Vectors);
    }
    layers.push(linear("encoder.head", (inputs, head_width(config)), HEAD, flattened));
    layers
}

/// The tail of the encoder's head.
const HEAD: Tail = Tail::Bias(Activation::Identity);

fn linear(name: &str, (inputs, outputs): (usize, usize), tail: Tail, flattened: Flattened) -> LayerSpec {
    let geometry = Geometry::linear(inputs, outputs);
    LayerSpec { name: name.to_owned(), geometry, direction: Direction::Down, tail, flattened }
}

/// Values of the encoder's output: of a Gaussian encoder, the means and then the log-variances.
pub(crate) fn head_width(config: &Config) -> usize {
    match config.encoder() {
        EncoderKind::Deterministic => config.latent_dim(),
        EncoderKind::Gaussian => 2 * config.latent_dim(),
    }
}

/// Linear layers with ReLU, then one logit.
fn adversary(config: &Config) -> Vec<LayerSpec> {
    let Some(widths) = config.objective().adversary_widths() else { return Vec::new() };
    let layer = |name: &str, inputs, outputs, activation| {
        linear(name, (inputs, outputs), Tail::Bias(activation), Flattened::Vectors)
    };
    let mut inputs = config.latent_dim();
    let mut layers = Vec::with_capacity(widths.len() + 1);
    for (i, &width) in widths.iter().enumerate() {
        layers.push(layer(&format!("adversary.{i}"), inputs, width, Activation::Relu));
        inputs = width;
    }
    layers.push(layer("adversary.out", inputs, 1, Activation::Identity));
    layers
}

fn decoder(config: &Config) -> Vec<LayerSpec> {
    // Pixels lie in [0, 1]; features are numbers of any range.
    let out = Tail::Bias(if config.input().is_some() { Activation::Identity } else { Activation::Sigmoid });
    match config.network() {
        Network::Convolutions(network) => convolutional_decoder(config, network, out),
        Network::Dense(widths) => dense_decoder(config, widths, out),
    }
}

fn convolutional_decoder(config: &Config, network: &Convolutions, out: Tail) -> Vec<LayerSpec> {
    let image = config.image();
    let widths = &network.decoder_channels;
    let mut grids = vec![(image.height(), image.width())];
    for i in 1..widths.len() {
        grids.push((grids[i - 1].0.div_ceil(2), grids[i - 1].1.div_ceil(2)));
    }
    grids.reverse();
    let pixels = grids[0].0 * grids[0].1;
    let sides = (config.latent_dim(), pixels * widths[0]);
    let flattened = Flattened::Outputs { pixels, channels: widths[0] };
    let mut layers = vec![linear("decoder.stem", sides, Tail::Bias(Activation::Relu), flattened)];
    let up = |name: String, grid, channels, stride, tail| LayerSpec {
        name,
        geometry: Geometry::same(grid, channels, network.kernel, stride),
        direction: Direction::Up,
        tail,
        flattened: Flattened::Neither,
    };
    for (i, pair) in widths.windows(2).enumerate() {
        layers.push(up(format!("decoder.{i}"), grids[i + 1], (pair[1], pair[0]), 2, Tail::Norm));
    }
    let channels = (image.channels(), widths[widths.len() - 1]);
    layers.push(up("decoder.out".to_owned(), grids[grids.len() - 1], channels, 1, out));
    layers
}

/// The dense encoder's widths in reverse, then a linear layer to all values of a row.
fn dense_decoder(config: &Config, widths: &[usize], out: Tail) -> Vec<LayerSpec> {
    let image = config.image();
    let mut inputs = config.latent_dim();
    let mut layers = Vec::with_capacity(widths.len() + 1);
    for (i, &width) in widths.iter().rev().enumerate() {
        layers.push(linear(&format!("decoder.{i}"), (inputs, width), Tail::Norm, Flattened::Vectors));
        inputs = width;
    }
    let flattened = Flattened::Outputs { pixels: image.height() * image.width(), channels: image.channels() };
    layers.push(linear("decoder.out", (inputs, image.len()), out, flattened));
    layers
}

impl LayerSpec {
    /// Whether it is a linear layer, whose tensors have no `conv` in their names.
    pub(crate) fn is_linear(&self) -> bool {
        self.flattened != Flattened::Neither
    }

    /// The precision of the layer in a model of the precision `wanted`. In bf16, linear layers, the first layer and the
    /// last one stay wide: latent codes, pixels and the logits of pixels need 32 bits.
    pub(crate) fn precision(&self, wanted: Precision, image_channels: usize) -> Precision {
        let narrow = self.tail == Tail::Norm && !self.is_linear() && self.geometry.large_channels != image_channels;
        if wanted == Precision::Bf16 && !narrow { Precision::Tf32 } else { wanted }
    }

    /// The shape of the layer's input, the grid that its convolution reads: (N, H, W, C).
    pub(crate) fn input_shape(&self, rows: usize) -> (usize, usize, usize, usize) {
        let g = &self.geometry;
        match self.direction {
            Direction::Down => (rows, g.large.0, g.large.1, g.large_channels),
            Direction::Up => (rows, g.small.0, g.small.1, g.small_channels),
        }
    }

    /// Channels of the layer's output.
    pub(crate) fn outputs(&self) -> usize {
        match self.direction {
            Direction::Down => self.geometry.small_channels,
            Direction::Up => self.geometry.large_channels,
        }
    }

    /// Role, name and shape of each of the layer's tensors in a file.
    pub(crate) fn tensors(&self) -> Vec<(Role, String, Vec<usize>)> {
        let g = &self.geometry;
        let name = &self.name;
        let outputs = vec![self.outputs()];
        let (prefix, shape) = if self.is_linear() {
            (name.clone(), vec![g.small_channels, g.large_channels])
        } else {
            (format!("{name}.conv"), vec![g.small_channels, g.large_channels, g.kernel, g.kernel])
        };
        let mut tensors = vec![(Role::Weight, format!("{prefix}.weight"), shape)];
        match self.tail {
            Tail::Bias(_) => tensors.push((Role::Bias, format!("{prefix}.bias"), outputs)),
            Tail::Norm => tensors.extend([
                (Role::Gamma, format!("{name}.norm.weight"), outputs.clone()),
                (Role::Beta, format!("{name}.norm.bias"), outputs.clone()),
                (Role::RunningMean, format!("{name}.norm.running_mean"), outputs.clone()),
                (Role::RunningVariance, format!("{name}.norm.running_var"), outputs),
            ]),
        }
        tensors
    }

    /// The number of products in a sum, as PyTorch's initialisation counts them: for a transposed convolution it takes
    /// the output channels.
    pub(crate) fn fan_in(&self) -> usize {
        self.geometry.taps() * self.geometry.large_channels
    }
}

/// The number of trainable values, saturating where a hostile configuration overflows.
pub(crate) fn parameters(config: &Config) -> usize {
    let values = |shape: &[usize]| shape.iter().fold(1_usize, |product, side| product.saturating_mul(*side));
    Architecture::new(config)
        .layers()
        .flat_map(LayerSpec::tensors)
        .filter(|(role, ..)| role.is_trained())
        .fold(0, |sum, (_, _, shape)| sum.saturating_add(values(&shape)))
}

/// The values of all weights as inference packs them, whose outputs fill whole panels of up to 64: a layer of one
/// output takes 64 times the memory that it takes in a file. Saturating.
pub(crate) fn packed_values(config: &Config) -> usize {
    const PANEL: usize = 64;
    let product = |sides: &[usize]| sides.iter().fold(1_usize, |product, side| product.saturating_mul(*side));
    let layer = |spec: &LayerSpec| {
        let g = &spec.geometry;
        let outputs = spec.outputs();
        let reduced = if spec.direction == Direction::Down { g.large_channels } else { g.small_channels };
        product(&[g.taps(), reduced, outputs.next_multiple_of(PANEL)])
    };
    // The discriminator is not packed: it trains only.
    let architecture = Architecture::new(config);
    let layers = architecture.encoder.iter().chain(&architecture.decoder);
    layers.fold(0, |sum, spec| sum.saturating_add(layer(spec)))
}

/// The values of the largest layer of one image, the columns of thin layers included, saturating.
pub(crate) fn largest_activation(config: &Config) -> usize {
    let product = |sides: &[usize]| sides.iter().fold(1_usize, |product, side| product.saturating_mul(*side));
    let layer = |g: &Geometry| {
        let large = product(&[g.large.0, g.large.1, g.large_channels]);
        let small = product(&[g.small.0, g.small.1, g.small_channels]);
        let columns = product(&[g.small.0, g.small.1, g.taps(), g.large_channels.min(4)]);
        large.max(small).max(columns)
    };
    Architecture::new(config).layers().map(|spec| layer(&spec.geometry)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainOptions;
    use crate::image::ImageShape;

    fn config(network: &str, shape: ImageShape) -> Config {
        TrainOptions::try_from_options([("network", network.into())]).unwrap().config(shape).unwrap()
    }

    /// Counted by hand in reference/wae-facts: the paper's networks without the biases that a norm cancels.
    #[test]
    fn the_papers_networks_have_their_number_of_parameters() {
        assert_eq!(parameters(&config("mnist", ImageShape::new(28, 28, 1))), 11_048_712 + 10_942_977);
        assert_eq!(parameters(&config("celeba", ImageShape::new(64, 64, 3))), 18_265_280 + 21_474_435);
    }

    #[test]
    fn layouts_round_trip_and_flatten_channels_last() {
        let shape = ImageShape::new(7, 6, 2);
        let architecture = Architecture::new(&config("3,5", shape));
        let dense = Architecture::new(&config("dense:3,5", shape));
        for layer in architecture.layers().chain(dense.layers()) {
            for (role, _, shape) in layer.tensors() {
                let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
                assert_eq!(
                    layer.write_layout(role, &layer.read_layout(role, &values)),
                    values,
                    "{} {role:?}",
                    layer.name
                );
            }
        }
        // 7×6 → 2×2 pixels of 5 channels: the second input in a file is pixel (0, 1) of channel 0, here value 5.
        let head = &architecture.encoder[2];
        let values: Vec<f32> = (0..20 * 64).map(|i| i as f32).collect();
        assert_eq!(head.read_layout(Role::Weight, &values[..20 * head.outputs()])[5 * head.outputs()], 1.0);
    }

    /// 6·4 values of 2 channels, 24 places: 48·3 weights and two norms of 3 and 5, and so on to the 48 outputs.
    #[test]
    fn dense_layers_have_pytorchs_names_and_shapes() {
        let config = config("dense:3,5", ImageShape::new(6, 4, 2));
        let architecture = Architecture::new(&config);
        let tensors: Vec<_> = architecture.layers().flat_map(LayerSpec::tensors).map(|(_, n, s)| (n, s)).collect();
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names[..6],
            [
                "encoder.0.weight",
                "encoder.0.norm.weight",
                "encoder.0.norm.bias",
                "encoder.0.norm.running_mean",
                "encoder.0.norm.running_var",
                "encoder.1.weight"
            ]
        );
        for (name, shape) in [
            ("encoder.0.weight", vec![3, 48]),
            ("encoder.head.weight", vec![8, 5]),
            ("decoder.0.weight", vec![5, 8]),
            ("decoder.1.norm.weight", vec![3]),
            ("decoder.out.weight", vec![48, 3]),
            ("decoder.out.bias", vec![48]),
        ] {
            assert!(tensors.contains(&(name.to_owned(), shape.clone())), "{name} {shape:?}");
        }
        let weights = 48 * 3 + 2 * 3 + 3 * 5 + 2 * 5 + 8 * (5 + 1);
        let mirrored = 8 * 5 + 2 * 5 + 5 * 3 + 2 * 3 + 48 * (3 + 1);
        assert_eq!(parameters(&config), weights + mirrored);
        // A file has the values of a row as (C, H, W): the second is place (0, 1) of channel 0, here value 2.
        let first = &architecture.encoder[0];
        let values: Vec<f32> = (0..3 * 48).map(|i| i as f32).collect();
        assert_eq!(first.read_layout(Role::Weight, &values)[2 * 3], 1.0);
    }

    #[test]
    fn names_and_shapes_are_pytorchs() {
        let architecture = Architecture::new(&config("celeba", ImageShape::new(64, 64, 3)));
        let tensors: Vec<_> = architecture.layers().flat_map(LayerSpec::tensors).map(|(_, n, s)| (n, s)).collect();
        for (name, shape) in [
            ("encoder.0.conv.weight", vec![128, 3, 5, 5]),
            ("encoder.3.norm.running_var", vec![1024]),
            ("encoder.head.weight", vec![64, 1024 * 16]),
            ("decoder.stem.bias", vec![1024 * 64]),
            ("decoder.2.conv.weight", vec![256, 128, 5, 5]),
            ("decoder.out.conv.weight", vec![128, 3, 5, 5]),
            ("decoder.out.conv.bias", vec![3]),
        ] {
            assert!(tensors.contains(&(name.to_owned(), shape.clone())), "{name} {shape:?}");
        }
    }
}
