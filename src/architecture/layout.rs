//! The order of a tensor's values in a file and in the kernels.

use rayon::prelude::*;

use super::{Flattened, LayerSpec, Role};

/// The fewest values that a thread moves.
const MOVED: usize = 1 << 14;

impl LayerSpec {
    /// A tensor of a file, (C_small, C_large, k, k), in the order of the kernels, (k, k, C_large, C_small).
    pub(crate) fn read_layout(&self, role: Role, values: &[f32]) -> Vec<f32> {
        gather(values, |here| self.place_in_file(role, here))
    }

    /// The reverse of [`Self::read_layout`].
    pub(crate) fn write_layout(&self, role: Role, values: &[f32]) -> Vec<f32> {
        gather(values, |file| self.place_here(role, file))
    }

    /// The place of a value here, from its place in a file.
    fn place_here(&self, role: Role, file: usize) -> usize {
        let g = &self.geometry;
        match role {
            Role::Weight => {
                let (tap, a, b) = thirds(file, g.taps(), g.large_channels);
                (tap * g.large_channels + self.input(a)) * g.small_channels + self.output(b)
            }
            Role::Bias => self.output(file),
            Role::Gamma | Role::Beta | Role::RunningMean | Role::RunningVariance => file,
        }
    }

    /// The place of a value in a file, from its place here.
    fn place_in_file(&self, role: Role, here: usize) -> usize {
        let g = &self.geometry;
        match role {
            Role::Weight => {
                let (b, a, tap) = thirds(here, g.small_channels, g.large_channels);
                (self.output_in_file(b) * g.large_channels + self.input_in_file(a)) * g.taps() + tap
            }
            Role::Bias => self.output_in_file(here),
            Role::Gamma | Role::Beta | Role::RunningMean | Role::RunningVariance => here,
        }
    }

    fn input(&self, i: usize) -> usize {
        match self.flattened {
            Flattened::Inputs { pixels, channels } => flipped(i, pixels, channels),
            _ => i,
        }
    }

    fn input_in_file(&self, i: usize) -> usize {
        match self.flattened {
            Flattened::Inputs { pixels, channels } => flipped(i, channels, pixels),
            _ => i,
        }
    }

    fn output(&self, i: usize) -> usize {
        match self.flattened {
            Flattened::Outputs { pixels, channels } => flipped(i, pixels, channels),
            _ => i,
        }
    }

    fn output_in_file(&self, i: usize) -> usize {
        match self.flattened {
            Flattened::Outputs { pixels, channels } => flipped(i, channels, pixels),
            _ => i,
        }
    }
}

/// The indices along three dimensions, the fastest first. `first` and `second` are the lengths of the two fastest.
fn thirds(i: usize, first: usize, second: usize) -> (usize, usize, usize) {
    (i % first, i / first % second, i / first / second)
}

/// The place in the transpose of value `i` of a matrix of `rows` rows and `columns` columns.
fn flipped(i: usize, columns: usize, rows: usize) -> usize {
    i % columns * rows + i / columns
}

fn gather(values: &[f32], place: impl Fn(usize) -> usize + Sync) -> Vec<f32> {
    (0..values.len()).into_par_iter().with_min_len(MOVED).map(|i| values[place(i)]).collect()
}

#[cfg(test)]
mod tests {
    use crate::architecture::Architecture;
    use crate::config::TrainOptions;
    use crate::image::ImageShape;

    /// Every tensor of a network with a head and a stem: back where it was, and moved as the shapes say.
    #[test]
    fn there_and_back() {
        let options = TrainOptions::try_from_options([("network", "3,5".into()), ("latent_dim", 4.into())]).unwrap();
        let architecture = Architecture::new(&options.config(ImageShape::new(12, 8, 2)).unwrap());
        for spec in architecture.layers() {
            for (role, name, shape) in spec.tensors() {
                let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
                let here = spec.read_layout(role, &values);
                assert_eq!(spec.write_layout(role, &here), values, "{name}");
                if name == "encoder.head.weight" {
                    // 3×2 pixels of 5 channels: in a file channel 0 comes first whole, here pixel 0 does.
                    let firsts: Vec<f32> = here.iter().step_by(4).take(6).copied().collect();
                    assert_eq!(firsts, [0.0, 6.0, 12.0, 18.0, 24.0, 1.0]);
                }
            }
        }
    }
}
