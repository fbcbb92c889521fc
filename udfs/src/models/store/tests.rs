use std::fs;
use std::sync::Arc;

use datafusion::config::ExtensionOptions;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use object_store::memory::InMemory;
use rstest::rstest;

use super::*;

/// A folder and an object store, each as `wae.model_dir`.
fn stores(dir: &Path) -> [ModelStore; 2] {
    [dir.display().to_string(), "memory:///some/models/".to_owned()].map(|dir| open(&dir).unwrap())
}

fn open(dir: &str) -> Result<ModelStore> {
    let registry = DefaultObjectStoreRegistry::new();
    let url = Url::parse("memory://").unwrap();
    datafusion::execution::object_store::ObjectStoreRegistry::register_store(
        &registry,
        &url,
        Arc::new(InMemory::new()),
    );
    let mut options = WaeOptions::default().with_object_stores(Arc::new(registry));
    options.set("model_dir", dir).unwrap();
    ModelStore::try_new("f", &options)
}

#[test]
fn files_are_written_read_renamed_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    for store in stores(dir.path()) {
        let file = store.file("a.safetensors".to_owned());
        assert!(!file.exists().unwrap(), "{file}");
        for error in [file.stamp().unwrap_err(), file.read(9).unwrap_err(), file.delete().unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{file}: {error}");
        }
        assert_eq!(file.rename("b").unwrap_err().kind(), io::ErrorKind::NotFound, "{file}");

        file.write(b"first".to_vec()).unwrap();
        let (bytes, first) = file.read(5).unwrap();
        assert_eq!((bytes.as_slice(), &first), (b"first".as_slice(), &file.stamp().unwrap()), "{file}");
        assert_eq!(store.names().unwrap(), ["a.safetensors"]);
        file.write(b"other".to_vec()).unwrap();
        assert_ne!(file.stamp().unwrap(), first, "{file}: the size is the same, the version is not");
        let error = file.read(4).unwrap_err().to_string();
        assert_eq!(error, "it has 5 bytes, expected at most 4 (wae.max_model_bytes)", "{file}");

        store.file("b".to_owned()).write(b"in the way".to_vec()).unwrap();
        file.rename("b").unwrap();
        assert!(!file.exists().unwrap(), "{file}");
        let renamed = store.file("b".to_owned());
        assert_eq!(renamed.read(5).unwrap().0, b"other", "{renamed}");
        renamed.delete().unwrap();
        assert_eq!(store.names().unwrap(), [""; 0], "{store}");
    }
}

#[test]
fn a_local_folder_is_made_and_an_object_store_needs_none() {
    let dir = tempfile::tempdir().unwrap();
    for store in stores(&dir.path().join("new/folder")) {
        store.create().unwrap();
        assert_eq!(store.names().unwrap(), [""; 0], "{store}");
    }
    assert!(dir.path().join("new/folder").is_dir());
}

#[test]
fn one_url_of_two_stores_is_two_files() {
    let key = || open("memory:///models").unwrap().file("m".to_owned());
    let (one, other) = (key(), key());
    assert_ne!(one.key(), other.key());
    assert_eq!(one.key(), one.store().file("m".to_owned()).key());
}

#[test]
fn a_file_url_is_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m"), "model").unwrap();
    let store = open(&format!("file://{}", dir.path().display())).unwrap();
    assert_eq!(store.file("m".to_owned()).read(5).unwrap().0, b"model");
}

#[rstest]
#[case("memory://a b/models", "f: wae.model_dir of scheme 'memory' is no URL: ")]
#[case("file://host/models", "is no URL: a file URL has the form file:///folder")]
#[case(
    "s3://user:secret@bucket/models?token=secret",
    "f: no object store is registered for 's3://bucket' (wae.model_dir is 's3://bucket/models'), expected one from \
     SessionContext::register_object_store(\"s3://bucket\", store)"
)]
#[case("s3://user:sec/ret@bucket/models", "f: wae.model_dir of scheme 's3' is no URL: ")]
#[case("s3://user:secret@bucket:port/models", "f: wae.model_dir of scheme 's3' is no URL: ")]
#[case("user:secret@s3://bucket", "f: wae.model_dir of scheme 'user' is no URL: expected the form s3://")]
#[case("s3://user:1/secret@bucket/models", "f: no object store is registered for 's3://…' (wae.model_dir is 's3://…')")]
#[case("memory:///a//secret@b", "f: wae.model_dir 'memory://…' is no prefix of an object store")]
#[case("memory:///a//b", "f: wae.model_dir 'memory:///a//b' is no prefix of an object store")]
fn a_url_that_leads_nowhere_is_refused(#[case] dir: &str, #[case] message: &str) {
    let error = open(dir).unwrap_err().strip_backtrace();
    assert!(error.contains(message) && !error.contains("ret@") && !error.contains("secret"), "{error}");
}

#[test]
fn options_of_no_context_have_no_stores() {
    let mut options = WaeOptions::default();
    options.set("model_dir", "s3://bucket/models").unwrap();
    let error = ModelStore::try_new("f", &options).unwrap_err().strip_backtrace();
    assert!(
        error.contains("f: wae.model_dir is 's3://bucket/models', but these options hold no object stores"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn what_is_no_file_of_the_folder_is_refused_at_once() {
    use std::os::unix::fs::symlink;

    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("models");
    fs::create_dir_all(inside.join("folder/deep")).unwrap();
    fs::write(dir.path().join("secret"), "outside").unwrap();
    fs::write(inside.join("v1"), "inside").unwrap();
    fs::write(inside.join("folder/deep/v2"), "deeper").unwrap();
    symlink("../secret", inside.join("relative")).unwrap();
    symlink(dir.path().join("secret"), inside.join("absolute")).unwrap();
    symlink("/dev/zero", inside.join("device")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    symlink("nothing", inside.join("dangling")).unwrap();
    symlink("v1", inside.join("latest")).unwrap();
    symlink("folder/deep/v2", inside.join("below")).unwrap();
    // A folder may be reached through a link: it is what its files must lie in.
    symlink("models", dir.path().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(inside.join("socket")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(inside.join("fifo")).status();

    for folder in [inside, dir.path().join("link")] {
        let store = ModelStore::Local(folder);
        let read = |name: &str| store.file(name.to_owned()).read(100).map(|(bytes, _)| bytes);
        let refused = |name: &str, message: &str| {
            let file = store.file(name.to_owned());
            for error in [file.stamp().unwrap_err(), read(name).unwrap_err()] {
                assert!(error.to_string().contains(message), "{file}: {error}");
            }
            assert!(!file.to_string().contains("secret"));
        };
        assert_eq!(read("latest").unwrap(), b"inside");
        assert_eq!(read("below").unwrap(), b"deeper");
        for name in ["relative", "absolute", "device"] {
            refused(name, "it is a link to a file outside of the folder");
        }
        refused("folder", "it is a folder, expected a file");
        refused("socket", "it is a device, a pipe or a socket, expected a file");
        refused("loop", "symbolic link");
        assert_eq!(read("dangling").unwrap_err().kind(), io::ErrorKind::NotFound);
        match &fifo {
            Ok(status) if status.success() => refused("fifo", "it is a device, a pipe or a socket, expected a file"),
            _ => eprintln!("skipped: no mkfifo on this machine"),
        }
        // Writing replaces a link, and leaves alone what it leads to.
        assert!(store.file("relative".to_owned()).exists().unwrap());
    }
    let store = ModelStore::Local(dir.path().join("models"));
    store.file("relative".to_owned()).write(b"new".to_vec()).unwrap();
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"outside");
    assert!(store.file("folder".to_owned()).exists().unwrap_err().to_string().contains("it is a folder"));
}
