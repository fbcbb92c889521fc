//! `kernels/`, compiled by NVRTC when a GPU is opened.
//!
//! It is compiled to the GPU's machine code: PTX of an NVRTC that is newer than the driver would be refused.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::result::{NvrtcError, compile_program, create_program, destroy_program, get_program_log};
use cudarc::nvrtc::sys::{nvrtcGetCUBIN, nvrtcGetCUBINSize, nvrtcProgram};

use crate::error::{Error, Result};

/// Files of `kernels/` as one; NVRTC's messages count each file's own lines.
macro_rules! joined {
    ($($file:literal),+) => {
        concat!($("#line 1 \"", $file, "\"\n", include_str!(concat!("kernels/", $file)), "\n"),+)
    };
}

/// The source of all kernels: what all need first, the others in any order.
const SOURCE: &str =
    joined!("common.cu", "sums.cu", "values.cu", "norm.cu", "objective.cu", "structural.cu", "adam.cu");

/// A program of NVRTC's, destroyed when it is dropped.
struct Program(nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created by `compile` and is destroyed here alone.
        if let Err(e) = unsafe { destroy_program(self.0) } {
            log::warn!("NVRTC: {e:?}");
        }
    }
}

/// The machine code of all kernels for an architecture such as `sm_90`.
pub(super) fn compile(architecture: &str) -> Result<Vec<u8>> {
    let failed = |e: NvrtcError| Error::Device(format!("compiling the kernels for {architecture}: {e:?}"));
    let source = CString::new(SOURCE).map_err(|e| Error::Device(format!("the kernels' source: {e}")))?;
    let program = Program(create_program(&source, Some(c"kernels")).map_err(failed)?);
    // SAFETY: the program lives until the end of this function, and so does the source that it may refer to.
    if let Err(e) = unsafe { compile_program(program.0, &[format!("--gpu-architecture={architecture}")]) } {
        // SAFETY: as above.
        let log = unsafe { get_program_log(program.0) }.map_err(failed)?;
        return Err(Error::Device(format!("compiling the kernels for {architecture}: {e:?}: {}", text(&log))));
    }
    let mut bytes = 0;
    // SAFETY: the program has been compiled, and `bytes` is where its size goes.
    unsafe { nvrtcGetCUBINSize(program.0, &raw mut bytes) }.result().map_err(failed)?;
    let mut code = vec![0_u8; bytes];
    // SAFETY: `code` has as many bytes as NVRTC has just said.
    unsafe { nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) }.result().map_err(failed)?;
    Ok(code)
}

/// What NVRTC says, up to the zero that ends it.
fn text(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|c| *c as u8).collect();
    CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The kernels' names, read from their source: those written out, and those that a macro makes for each type.
pub(super) fn names() -> Vec<String> {
    let name = |line: &str| {
        let (_, rest) = line.split_once("extern \"C\" __global__ void ")?;
        Some(rest.split_once('(')?.0.to_owned())
    };
    let written = SOURCE.lines().filter_map(name);
    written
        .flat_map(|name| match name.strip_suffix("##NAME") {
            Some(stem) => vec![format!("{stem}f32"), format!("{stem}bf16")],
            None => vec![name],
        })
        .collect()
}
