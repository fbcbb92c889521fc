//! Where models are trained and applied.

use std::fmt;

/// Where a model is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The first GPU, where the crate is built with the feature `cuda` and one can be opened; else the processor. The log says
    /// once why it is the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU of this number, from 0. It is an error where it cannot be opened.
    Cuda(usize),
}

impl Device {
    /// What a device may be called, for messages.
    pub const NAMES: &'static str = if cfg!(feature = "cuda") { "auto, cpu or cuda:N" } else { "auto or cpu" };

    /// The device of a name, in any case: `auto`, `cpu`, and with the feature `cuda` also `cuda:N`. `None` for any other.
    ///
    /// # Example
    /// ```
    /// use wae_core::Device;
    ///
    /// assert_eq!(Device::from_name("CPU"), Some(Device::Cpu));
    /// assert_eq!(Device::from_name("tpu"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            name if cfg!(feature = "cuda") => name.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda),
            _ => None,
        }
    }

    /// The device that `Auto` means on this machine; another stays what it is.
    pub fn resolved(self) -> Self {
        crate::ops::resolve(self)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
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
        let gpu = cfg!(feature = "cuda").then_some(Device::Cuda(1));
        assert_eq!(Device::from_name("cuda:1"), gpu);
        for name in ["", "cuda", "cuda:", "cuda:x", "cuda:-1", "gpu"] {
            assert_eq!(Device::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn auto_means_a_device_and_others_stay() {
        assert_ne!(Device::Auto.resolved(), Device::Auto);
        assert_eq!(Device::Cpu.resolved(), Device::Cpu);
        if !cfg!(feature = "cuda") {
            assert_eq!(Device::Auto.resolved(), Device::Cpu);
        }
    }
}
