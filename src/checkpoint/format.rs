//! The common part of model files and checkpoints: safetensors with JSON in the metadata, read strictly.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{Error, Result};

/// The largest header that is parsed: the tensors' names, and the metadata.
pub(super) const MAX_HEADER_BYTES: usize = 64 << 20;
/// The longest text of each key of the metadata. A history has at most 100,000 epochs, of about 350 bytes each.
const MAX_TEXT: [(&str, usize); 4] =
    [("config", 1 << 16), ("training", 1 << 20), ("history", 48 << 20), ("state", 1 << 20)];

/// The tensors of a file of one of the expected formats, whose names and shapes are not checked yet, and its metadata.
pub(super) fn open<'a>(bytes: &'a [u8], formats: &[&str]) -> Result<(SafeTensors<'a>, HashMap<String, String>)> {
    check_header(bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    check_format(&metadata, formats)?;
    Ok((file, metadata))
}

/// An error of the safetensors crate.
pub(super) fn broken(error: safetensors::SafeTensorError) -> Error {
    Error::Model(format!("not a safetensors file: {error}"))
}

/// Refuses a header that is too long, before it is parsed.
pub(crate) fn check_header(declared: u64) -> Result<()> {
    if declared > MAX_HEADER_BYTES as u64 {
        return Err(Error::Model(format!("the header declares {declared} bytes, expected at most {MAX_HEADER_BYTES}")));
    }
    Ok(())
}

pub(super) fn check_format(metadata: &HashMap<String, String>, expected: &[&str]) -> Result<()> {
    let names = || expected.iter().map(|format| format!("'{format}'")).collect::<Vec<_>>().join(" or ");
    match metadata.get("format") {
        Some(format) if expected.contains(&format.as_str()) => Ok(()),
        Some(other) => Err(Error::Model(format!("format is '{other}', expected {}", names()))),
        None => Err(Error::Model(format!("the metadata names no format, expected {}", names()))),
    }
}

/// A value of the metadata, if it is there.
pub(super) fn json<T: serde::de::DeserializeOwned>(metadata: &HashMap<String, String>, key: &str) -> Result<Option<T>> {
    let most = MAX_TEXT.iter().find(|(known, _)| *known == key).map_or(0, |(_, most)| *most);
    let parse = |text: &String| match text.len() {
        bytes if bytes > most => Err(Error::Model(format!("'{key}' has {bytes} bytes, expected at most {most}"))),
        _ => serde_json::from_str(text).map_err(|e| Error::Model(format!("'{key}' is unreadable: {e}"))),
    };
    metadata.get(key).map(parse).transpose()
}

/// A value of the metadata; it is an error if it is missing.
pub(super) fn required<T: serde::de::DeserializeOwned>(metadata: &HashMap<String, String>, key: &str) -> Result<T> {
    json(metadata, key)?.ok_or_else(|| Error::Model(format!("the metadata has no '{key}'")))
}

/// Refuses a tensor that is missing, one of another shape or type than expected, and one that is neither expected nor
/// one of `others`.
pub(super) fn check_names_and_shapes(
    file: &SafeTensors<'_>,
    expected: &BTreeMap<String, Vec<usize>>,
    others: impl Fn(&str, &[usize]) -> bool,
) -> Result<()> {
    let mut tensors: Vec<_> = file.iter().collect();
    tensors.sort_by_key(|(name, _)| *name); // so that of several faults the same one is named each time
    for (name, view) in tensors {
        if !matches!(view.dtype(), Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            return Err(Error::model_tensor(name, format!("is {:?}, expected F32, BF16 or F16", view.dtype())));
        }
        match expected.get(name) {
            Some(shape) if shape == view.shape() => {}
            Some(shape) => return Err(wrong_shape(name, shape.clone(), &view)),
            None if others(name, view.shape()) => {}
            None => return Err(Error::Model(format!("unknown tensor '{name}' of shape {:?}", view.shape()))),
        }
    }
    match expected.keys().find(|name| file.tensor(name).is_err()) {
        Some(name) => Err(Error::model_tensor(name, "is missing")),
        None => Ok(()),
    }
}

pub(super) fn wrong_shape(tensor: &str, expected: Vec<usize>, got: &TensorView<'_>) -> Error {
    Error::ModelTensorShape { tensor: tensor.to_owned(), expected, got: got.shape().to_vec() }
}

/// The values of a tensor whose type has been checked.
pub(crate) fn values(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>> {
    let data = view.data();
    let half = |convert: fn([u8; 2]) -> f32| data.as_chunks::<2>().0.iter().map(|b| convert(*b)).collect();
    let values: Vec<f32> = match view.dtype() {
        Dtype::BF16 => half(|b| half::bf16::from_le_bytes(b).to_f32()),
        Dtype::F16 => half(|b| half::f16::from_le_bytes(b).to_f32()),
        _ => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    match values.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(Error::model_tensor(name, format!("has the value {v}, expected finite numbers"))),
        None => Ok(values),
    }
}

/// The metadata's JSON.
pub(super) fn text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Model(format!("cannot write the model: {e}")))
}

/// The bytes of a file of these tensors of F32, each with its name and shape, in their order; then of others as they
/// are.
///
/// Written here and not by the crate, which orders the metadata at random: a model's bytes are its identity.
pub(super) fn to_bytes<N: AsRef<str>>(
    metadata: &BTreeMap<&str, String>,
    tensors: &[(N, Vec<usize>, &[f32])],
    others: &[(String, Dtype, &[usize], &[u8])],
) -> Result<Vec<u8>> {
    let mut header = BTreeMap::from([("__metadata__", serde_json::json!(metadata))]);
    let mut end = 0;
    let mut place = |dtype: &Dtype, shape: &[usize], bytes: usize| {
        let start = end;
        end += bytes;
        serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]})
    };
    for (name, shape, values) in tensors {
        header.insert(name.as_ref(), place(&Dtype::F32, shape, size_of_val(*values)));
    }
    for (name, dtype, shape, bytes) in others {
        header.insert(name, place(dtype, shape, bytes.len()));
    }
    let mut header = text(&header)?.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = Vec::with_capacity(8 + header.len() + end);
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    bytes.extend(tensors.iter().flat_map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes())));
    others.iter().for_each(|(.., data)| bytes.extend_from_slice(data));
    Ok(bytes)
}
