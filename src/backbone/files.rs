//! The files of a pretrained network, as people download them: which of them hold its weights, and which are refused.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// The most bytes of all weights together: twice the largest of the networks that are known here, in f32.
const MAX_WEIGHT_BYTES: u64 = 8 << 30;
/// The most bytes of a file of JSON. An index has about 100 for each tensor.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// The most files that the weights may be split into.
const MAX_SHARDS: usize = 1000;
/// The weights in one file, and the list of the files that they are split into, as the hubs name them.
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Endings of files in formats that are not read, each with its name.
const REFUSED: [(&str, &str); 8] = [
    ("pth", "PyTorch's pickle"),
    ("pt", "PyTorch's pickle"),
    ("bin", "PyTorch's pickle"),
    ("ckpt", "PyTorch's pickle"),
    ("tar", "PyTorch's pickle"),
    ("onnx", "ONNX"),
    ("h5", "Keras' HDF5"),
    ("msgpack", "Flax's MessagePack"),
];

/// The files of a pretrained network: their names and sizes, and a way to read them.
///
/// They may lie in a folder, in an object store, or in memory.
pub struct WeightFiles<'a> {
    /// The folder or the file, for messages.
    name: String,
    /// Bytes of each file, by its name in the folder; `None` of what is no file.
    sizes: BTreeMap<String, Option<u64>>,
    /// The weights, where one file was named and not a folder.
    single: Option<String>,
    read: Read<'a>,
}

/// Gives the bytes of a file by its name.
type Read<'a> = Box<dyn Fn(&str) -> Result<Vec<u8>> + 'a>;

impl fmt::Debug for WeightFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightFiles").field("name", &self.name).field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// The files of the weights, and the file that each tensor is in, where an index says so.
#[derive(Debug, PartialEq)]
pub(super) struct WeightList {
    pub(super) files: Vec<String>,
    pub(super) index: Option<BTreeMap<String, String>>,
}

impl<'a> WeightFiles<'a> {
    /// The files of a folder, which messages call `name`: the bytes of each, and `read`, which gives them by its name.
    /// An entry of the folder that is no file, such as a pipe, has no number of bytes: it is refused where a file of its
    /// name is asked for.
    ///
    /// `single` names the weights among them, where one file is meant and not the folder. A file is read only if its
    /// size is within bounds.
    pub fn new(
        name: impl Into<String>,
        sizes: BTreeMap<String, impl Into<Option<u64>>>,
        single: Option<String>,
        read: impl Fn(&str) -> Result<Vec<u8>> + 'a,
    ) -> Self {
        let sizes = sizes.into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
        Self { name: name.into(), sizes, single, read: Box::new(read) }
    }

    /// The files at a path of this machine: those of a folder, or a `.safetensors` file with those beside it.
    ///
    /// # Errors
    /// [`Error::Io`] if the path cannot be listed.
    pub fn at(path: &'a Path) -> Result<Self> {
        let at = |e| Error::io(path, e);
        let is_folder = fs::metadata(path).map_err(at)?.is_dir();
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let folder = if is_folder { path } else { parent };
        let mut sizes = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            // Links are followed: the Hugging Face cache is made of them.
            let file = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file);
            if let Ok(name) = entry.file_name().into_string() {
                sizes.insert(name, file.map(|file| file.len()));
            }
        }
        let single = path.file_name().filter(|_| !is_folder).map(|name| name.to_string_lossy().into_owned());
        let read = move |name: &str| read_file(&folder.join(name));
        Ok(Self::new(path.display().to_string(), sizes, single, read))
    }

    /// The folder or the file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of JSON, with its bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Model`] if it is too long or no JSON object, and those of reading it.
    pub(super) fn json(&self, name: &str) -> Result<Option<(Value, Vec<u8>)>> {
        let Some(bytes) = self.size(name)? else { return Ok(None) };
        if bytes > MAX_JSON_BYTES {
            return Err(self.problem(format!("{name} has {bytes} bytes, expected at most {MAX_JSON_BYTES}")));
        }
        let bytes = self.read(name)?;
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Some((value, bytes))),
            Ok(_) => Err(self.problem(format!("{name} holds no JSON object"))),
            Err(e) => Err(self.problem(format!("{name} is no JSON: {e}"))),
        }
    }

    /// The bytes that a file has; `None` if there is none of this name.
    ///
    /// # Errors
    /// [`Error::Model`] if what has the name is no file.
    fn size(&self, name: &str) -> Result<Option<u64>> {
        let Some(bytes) = self.sizes.get(name) else { return Ok(None) };
        bytes.map(Some).ok_or_else(|| self.no_file(name))
    }

    fn no_file(&self, name: &str) -> Error {
        let what = "a folder, a pipe, a device or a link that leads nowhere";
        self.problem(format!("{name} is no regular file but {what}, expected a file"))
    }

    /// The bytes of a file.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let bytes = (self.read)(name)?;
        match self.size(name)? == Some(bytes.len() as u64) {
            true => Ok(bytes),
            false => Err(self.problem(format!("{name} changed while it was read"))),
        }
    }

    /// The files of the weights, whose sizes are within bounds.
    ///
    /// # Errors
    /// [`Error::Model`] if there are none, several to choose from, or only formats that are not read.
    pub(super) fn weights(&self) -> Result<WeightList> {
        let weights = self.find()?;
        if weights.files.len() > MAX_SHARDS {
            return Err(
                self.problem(format!("{} files of weights, expected at most {MAX_SHARDS}", weights.files.len()))
            );
        }
        let mut bytes = 0_u64;
        for name in &weights.files {
            bytes = bytes.saturating_add(self.size(name)?.unwrap_or(u64::MAX));
        }
        if bytes > MAX_WEIGHT_BYTES {
            return Err(self.problem(format!("the weights have {bytes} bytes, expected at most {MAX_WEIGHT_BYTES}")));
        }
        Ok(weights)
    }

    fn find(&self) -> Result<WeightList> {
        if let Some(single) = &self.single {
            self.check_format(single)?;
            if self.size(single)?.is_none() {
                return Err(self.problem("this is no regular file, or none any more"));
            }
            return self.whole(single);
        }
        if self.size(SINGLE)?.is_some() {
            return self.whole(SINGLE);
        }
        if let Some((index, _)) = self.json(INDEX)? {
            return self.shards(&index);
        }
        let is_weights = |(name, bytes): &(&String, &Option<u64>)| bytes.is_some() && extension(name) == "safetensors";
        let found: Vec<_> = self.sizes.iter().filter(is_weights).map(|(name, _)| name).collect();
        match found.as_slice() {
            [one] => self.whole(one),
            [] => {
                let other = self.sizes.keys().find(|name| extension(name) == "safetensors");
                Err(other.map_or_else(|| self.without_weights(), |name| self.no_file(name)))
            }
            [part, ..] if is_part(part) => self.whole(part),
            several => Err(self.problem(format!("several files of weights, {several:?}: name one of them"))),
        }
    }

    /// The weights in one file, which must not be a part of them: a part lacks tensors.
    fn whole(&self, name: &str) -> Result<WeightList> {
        // An index that cannot be read is of other weights, as far as anyone knows.
        let index = self.json(INDEX).ok().flatten().and_then(|(index, _)| self.shards(&index).ok());
        if is_part(name) || index.is_some_and(|list| list.files.len() > 1 && list.files.iter().any(|f| f == name)) {
            return Err(self.problem(format!(
                "{name} is a part of weights in several files, expected the folder of all of them, with {INDEX}, which \
                 says what is in which"
            )));
        }
        Ok(WeightList { files: vec![name.to_owned()], index: None })
    }

    /// The files that an index names: plain names of files beside it, each of them there.
    fn shards(&self, index: &Value) -> Result<WeightList> {
        let map = index.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| self.problem(format!("{INDEX} has no object 'weight_map'")))?;
        let mut files = BTreeMap::new();
        for (tensor, file) in map {
            let file = file.as_str().unwrap_or_default();
            // A name that leads out of the folder, or to another index, is no name of a file of weights here.
            if extension(file) != "safetensors" || file.contains(['/', '\\', ':', '\0']) || file.starts_with('.') {
                let expected = "the name of a .safetensors file beside it";
                return Err(self.problem(format!("{INDEX} has '{file}' for tensor '{tensor}', expected {expected}")));
            }
            if self.size(file)?.is_none() {
                return Err(self.problem(format!("{INDEX} names the file '{file}', which is missing")));
            }
            files.insert(tensor.clone(), file.to_owned());
        }
        let mut names: Vec<String> = files.values().cloned().collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(self.problem(format!("{INDEX} names no files")));
        }
        Ok(WeightList { files: names, index: Some(files) })
    }

    /// Refuses a file of weights in another format than safetensors.
    fn check_format(&self, name: &str) -> Result<()> {
        match extension(name).as_str() {
            "safetensors" => Ok(()),
            "json" => Err(self.problem("this file names weights; give the folder that it lies in")),
            other => match REFUSED.iter().find(|(ending, _)| *ending == other) {
                Some((_, format)) => Err(self.refused(name, format)),
                None => Err(self.problem("expected a .safetensors file, or a folder with one")),
            },
        }
    }

    fn without_weights(&self) -> Error {
        let refused = self.sizes.keys().find_map(|name| {
            let ending = extension(name);
            REFUSED.iter().find(|(refused, _)| *refused == ending).map(|(_, format)| (name, *format))
        });
        match refused {
            Some((name, format)) => self.refused(name, format),
            None if self.sizes.is_empty() => self.problem("there are no files, expected model.safetensors"),
            None => {
                let names: Vec<_> = self.sizes.keys().take(5).collect();
                self.problem(format!("there is no .safetensors file, only {names:?}"))
            }
        }
    }

    /// The error for another format, with what converts it: a pickle runs the code that is in it when it is read.
    fn refused(&self, name: &str, format: &str) -> Error {
        if !format.starts_with("PyTorch") {
            return self.problem(format!("'{name}' is {format}, which is not read; expected a .safetensors file"));
        }
        self.problem(format!(
            "'{name}' is {format}, which can run code and is not read. These two lines of Python convert it:\n\
             import torch, safetensors.torch\n\
             safetensors.torch.save_file({{k: v.contiguous().clone() for k, v in \
             torch.load({name:?}, map_location='cpu', weights_only=True).items()}}, '{SINGLE}')"
        ))
    }

    pub(super) fn problem(&self, problem: impl fmt::Display) -> Error {
        Error::Model(format!("weights '{}': {problem}", self.name))
    }
}

/// The part of a name behind its last dot, in lower case.
fn extension(name: &str) -> String {
    Path::new(name).extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether a name says that the file is one part of several, as the hubs write it: `model-00001-of-00003.safetensors`.
fn is_part(name: &str) -> bool {
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    let Some((part, count)) = stem.rsplit_once("-of-") else { return false };
    let number = |text: &str| text.parse::<u32>().ok();
    part.rsplit_once('-').is_some_and(|(_, part)| number(part).is_some()) && number(count).is_some_and(|n| n > 1)
}

/// Reads a file, at most the bytes of all weights: it may grow while it is read.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let at = |e| Error::io(path, e);
    let mut bytes = Vec::new();
    File::open(path).map_err(at)?.take(MAX_WEIGHT_BYTES + 1).read_to_end(&mut bytes).map_err(at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Files of these names, of as many bytes as their contents.
    fn files(contents: &[(&str, &'static str)]) -> WeightFiles<'static> {
        let sizes = contents.iter().map(|(name, text)| ((*name).to_owned(), text.len() as u64)).collect();
        let texts: BTreeMap<String, &'static str> =
            contents.iter().map(|(name, text)| ((*name).to_owned(), *text)).collect();
        WeightFiles::new("net", sizes, None, move |name| Ok(texts[name].as_bytes().to_vec()))
    }

    fn error(contents: &[(&str, &'static str)]) -> String {
        files(contents).weights().unwrap_err().to_string()
    }

    #[test]
    fn the_weights_are_found_under_the_names_of_hubs() {
        let single = |name: &str| WeightList { files: vec![name.to_owned()], index: None };
        assert_eq!(files(&[(SINGLE, ""), ("other.safetensors", "")]).weights().unwrap(), single(SINGLE));
        assert_eq!(
            files(&[("resnet.safetensors", ""), ("a.txt", "")]).weights().unwrap(),
            single("resnet.safetensors")
        );
        let index = r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#;
        let sharded = files(&[(INDEX, index), ("1.safetensors", ""), ("2.safetensors", "")]).weights().unwrap();
        assert_eq!(sharded.files, ["1.safetensors", "2.safetensors"]);
        assert_eq!(sharded.index.unwrap()["a"], "2.safetensors");
    }

    #[rstest]
    #[case::nothing(&[], "there are no files, expected model.safetensors")]
    #[case::text(&[("notes.txt", "")], "there is no .safetensors file, only [\"notes.txt\"]")]
    #[case::two(&[("a.safetensors", ""), ("b.safetensors", "")], "name one of them")]
    #[case::part(&[("net-1-of-2.safetensors", "")], "net-1-of-2.safetensors is a part of weights in several files")]
    #[case::parts(&[("m-00001-of-00002.safetensors", ""), ("m-00002-of-00002.safetensors", "")], "with model.safetensors.index.json")]
    #[case::onnx(&[("net.onnx", "")], "'net.onnx' is ONNX, which is not read; expected a .safetensors file")]
    #[case::pickle(&[("pytorch_model.bin", "")], "weights_only=True).items()}, 'model.safetensors')")]
    #[case::index(&[(INDEX, "[]")], "holds no JSON object")]
    #[case::broken_index(&[(INDEX, "{")], "is no JSON")]
    #[case::no_map(&[(INDEX, "{}")], "has no object 'weight_map'")]
    #[case::no_names(&[(INDEX, r#"{"weight_map": {}}"#)], "names no files")]
    #[case::missing(&[(INDEX, r#"{"weight_map": {"a": "1.safetensors"}}"#)], "names the file '1.safetensors'")]
    #[case::cycle(&[(INDEX, r#"{"weight_map": {"a": "model.safetensors.index.json"}}"#)], "expected the name of a")]
    #[case::number(&[(INDEX, r#"{"weight_map": {"a": 1}}"#)], "has '' for tensor 'a'")]
    #[case::outside(&[(INDEX, r#"{"weight_map": {"a": "../1.safetensors"}}"#)], "has '../1.safetensors' for")]
    #[case::absolute(&[(INDEX, r#"{"weight_map": {"a": "/1.safetensors"}}"#)], "expected the name of a .safetensors")]
    #[case::windows(&[(INDEX, r#"{"weight_map": {"a": "..\\1.safetensors"}}"#)], "expected the name of a .safetensors")]
    fn folders_without_weights(#[case] contents: &[(&str, &'static str)], #[case] expected: &str) {
        let error = error(contents);
        assert!(error.starts_with("weights 'net': ") && error.contains(expected), "{error}");
    }

    #[test]
    fn a_part_of_the_weights_is_not_taken_for_all() {
        let index = r#"{"weight_map": {"a": "first.safetensors", "b": "second.safetensors"}}"#;
        let named = |single: &str, index: &'static str| {
            let contents = [(INDEX, index), ("first.safetensors", ""), ("second.safetensors", "")];
            let files = WeightFiles { single: Some(single.to_owned()), ..files(&contents) };
            files.weights().map(|list| list.files).map_err(|e| e.to_string())
        };
        let error = named("first.safetensors", index).unwrap_err();
        assert!(error.contains("first.safetensors is a part of weights in several files") && error.contains(INDEX));
        assert_eq!(named("first.safetensors", "{").unwrap(), ["first.safetensors"]);
        let alone = r#"{"weight_map": {"a": "first.safetensors"}}"#;
        assert_eq!(named("first.safetensors", alone).unwrap(), ["first.safetensors"]);
        for (name, expected) in [
            ("model-00001-of-00003.safetensors", true),
            ("model-00001-of-00001.safetensors", false),
            ("state-of-2.safetensors", false),
            ("vit-2-of-hearts.safetensors", false),
            ("model.safetensors", false),
        ] {
            assert_eq!(is_part(name), expected, "{name}");
        }
    }

    /// A file of JSON that is taken as absent would change the values.
    #[rstest]
    #[case("config.json")]
    #[case("preprocessor_config.json")]
    #[case(INDEX)]
    #[case(SINGLE)]
    #[case("folder.safetensors")]
    fn what_is_no_file_is_refused_and_not_taken_as_absent(#[case] name: &str) {
        let sizes = BTreeMap::from([(name.to_owned(), None::<u64>)]);
        let files = WeightFiles::new("net", sizes, None, |_| Ok(Vec::new()));
        let error = match name.ends_with("config.json") {
            true => files.json(name).unwrap_err().to_string(),
            false => files.weights().unwrap_err().to_string(),
        };
        assert!(
            error.starts_with(&format!("weights 'net': {name} is no regular file but a folder, a pipe")),
            "{error}"
        );
    }

    /// The sizes are those of a listing: nothing is read.
    #[test]
    fn sizes_are_bounded_before_a_file_is_read() {
        let sized = |name: &str, size: u64| {
            let read = |_: &str| -> Result<Vec<u8>> { panic!("read") };
            WeightFiles::new("net", BTreeMap::from([(name.to_owned(), size)]), None, read)
        };
        let error = sized(SINGLE, 1 << 60).weights().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("weights 'net': the weights have {} bytes, expected at most 8589934592", 1_u64 << 60)
        );
        let error = sized("config.json", 1 << 60).json("config.json").unwrap_err().to_string();
        assert!(error.contains("expected at most 16777216"), "{error}");
    }

    #[test]
    fn a_single_file_must_be_safetensors() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "x").unwrap();
            path
        };
        let error = |name: &str| WeightFiles::at(&path(name)).unwrap().weights().unwrap_err().to_string();
        assert!(error("net.pth").contains("torch.load(\"net.pth\", map_location='cpu', weights_only=True)"));
        assert!(error("net.onnx").contains("is ONNX"));
        assert!(error("net.txt").contains("expected a .safetensors file, or a folder with one"));
        assert!(error(INDEX).contains("give the folder"));
        let single = path("net.safetensors");
        let files = WeightFiles::at(&single).unwrap();
        assert_eq!(files.weights().unwrap().files, ["net.safetensors"]);
        assert_eq!(files.read("net.safetensors").unwrap(), b"x");
        assert!(WeightFiles::at(&dir.path().join("absent")).is_err());
    }
}
