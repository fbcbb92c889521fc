//! Which instructions the kernels use: chosen once, at run time.

use std::sync::OnceLock;

/// A family of instructions that the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// Instructions that every machine of the target has.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F.
    Avx512,
}

impl Backend {
    /// The backends that this machine can run, the portable one first.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "other targets have one backend"))]
        let mut backends = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                backends.push(Self::Avx2);
            }
            if avx2 && is_x86_feature_detected!("avx512f") {
                backends.push(Self::Avx512);
            }
        }
        backends
    }

    /// The name that the environment variable `WAE_KERNELS` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// The environment variable that names a backend, or `composed`.
const VARIABLE: &str = "WAE_KERNELS";
/// The name under which the CPU computes by candle's own tensor operations, as a GPU does.
const COMPOSED: &str = "composed";

/// The backend in use: the best that this machine has, or the one that `WAE_KERNELS` (portable, avx2, avx512) names. A
/// name that is unknown or cannot run here is reported once in the log, and the best is taken.
pub fn backend() -> Backend {
    static BACKEND: OnceLock<Backend> = OnceLock::new();
    *BACKEND.get_or_init(|| {
        let available = Backend::available();
        let best = available.last().copied().unwrap_or(Backend::Portable);
        match std::env::var(VARIABLE) {
            Err(_) => best,
            Ok(name) if name == COMPOSED => best,
            Ok(name) => available.iter().copied().find(|b| b.name() == name).unwrap_or_else(|| {
                let mut names: Vec<_> = available.iter().map(|b| b.name()).collect();
                names.push(COMPOSED);
                log::warn!("{VARIABLE} is '{name}', expected one of {}: using {}", names.join(", "), best.name());
                best
            }),
        }
    })
}

/// Whether `WAE_KERNELS` is `composed`: the CPU then computes as a GPU does, by candle's own tensor operations.
pub(crate) fn is_composed() -> bool {
    static IS_COMPOSED: OnceLock<bool> = OnceLock::new();
    *IS_COMPOSED.get_or_init(|| std::env::var(VARIABLE).is_ok_and(|name| name == COMPOSED))
}

/// Whether the processor multiplies pairs of bf16 (AVX512_BF16) and the backend in use may ask it to. Elsewhere bf16
/// weights would be slower than f32 ones and no smaller in any way that matters.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512bf16") && backend() == Backend::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// A piece of arithmetic to be compiled once for each backend. `run` must be `#[inline(always)]`.
pub(super) trait Work {
    /// Does the work.
    fn run(self);
}

/// Runs a piece of work with a backend's instructions, so that the compiler vectorises its loops for them.
pub(super) fn dispatch(backend: Backend, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(work: impl Work) {
            work.run();
        }
        #[target_feature(enable = "avx2,fma,avx512f")]
        unsafe fn avx512(work: impl Work) {
            work.run();
        }
        match backend {
            Backend::Portable => {}
            // SAFETY: backends other than the portable one come from `Backend::available`, which asked the processor.
            Backend::Avx2 => return unsafe { avx2(work) },
            // SAFETY: as above.
            Backend::Avx512 => return unsafe { avx512(work) },
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = backend;
    work.run();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_backend_is_always_there() {
        assert_eq!(Backend::available()[0], Backend::Portable);
        assert!(Backend::available().contains(&backend()));
    }
}
