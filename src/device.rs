//! Devices that models are trained and applied on, and precisions.

mod precision;

use std::fmt;

pub use self::precision::Precision;

/// The device that a model is computed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The first NVIDIA GPU if the crate is built with the feature `cuda` and the GPU can be opened; else the
    /// processor. The log says once why it is the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this number, from 0. It is an error if it cannot be opened.
    Cuda(usize),
    /// Apple's GPU of this number, from 0. It is an error if it cannot be opened.
    Metal(usize),
}

impl Device {
    /// The names that [`Self::from_name`] takes in this build, for messages.
    pub const NAMES: &'static str = match (cfg!(feature = "cuda"), cfg!(feature = "metal")) {
        (true, true) => "auto, cpu, cuda, cuda:N, metal or metal:N",
        (true, false) => "auto, cpu, cuda or cuda:N",
        (false, true) => "auto, cpu, metal or metal:N",
        (false, false) => "auto or cpu",
    };

    /// The device of a name, in any case: `auto`, `cpu`, and of the kinds that are built in `cuda` or `metal`, which
    /// mean the first GPU, or `cuda:N` or `metal:N`. `None` for any other.
    ///
    /// # Example
    /// ```
    /// use wae_core::Device;
    ///
    /// assert_eq!(Device::from_name("CPU"), Some(Device::Cpu));
    /// assert_eq!(Device::from_name("tpu"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse().ok()?)),
            None => (name.as_str(), None),
        };
        match (kind, number) {
            ("auto", None) => Some(Self::Auto),
            ("cpu", None) => Some(Self::Cpu),
            ("cuda", number) if cfg!(feature = "cuda") => Some(Self::Cuda(number.unwrap_or(0))),
            ("metal", number) if cfg!(feature = "metal") => Some(Self::Metal(number.unwrap_or(0))),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for device in [Device::Auto, Device::Cpu] {
            assert_eq!(Device::from_name(&device.to_string()), Some(device));
        }
        for (name, number) in [("cuda:1", 1), ("CUDA", 0)] {
            assert_eq!(Device::from_name(name), cfg!(feature = "cuda").then_some(Device::Cuda(number)), "{name}");
        }
        for (name, number) in [("metal:1", 1), ("metal", 0)] {
            assert_eq!(Device::from_name(name), cfg!(feature = "metal").then_some(Device::Metal(number)), "{name}");
        }
        for name in ["", "cuda:", "cuda:x", "cuda:-1", "gpu", "cpu:0", "auto:0"] {
            assert_eq!(Device::from_name(name), None, "{name}");
        }
    }
}
