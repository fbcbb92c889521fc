use datafusion::config::ExtensionOptions;

use super::*;

fn options(dir: &Path) -> WaeOptions {
    let mut options = WaeOptions::default();
    options.set("weights_dir", &dir.display().to_string()).unwrap();
    options
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/backbones")
}

#[test]
fn a_network_is_kept_until_a_file_of_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sub/net");
    fs::create_dir_all(&folder).unwrap();
    for file in ["model.safetensors", "config.json"] {
        fs::copy(fixtures().join("resnet-timm").join(file), folder.join(file)).unwrap();
    }
    let options = options(dir.path());
    let first = load("f", "sub/net", Device::Cpu, &options).unwrap();
    assert!(Arc::ptr_eq(&first, &load("f", "./sub/net", Device::Cpu, &options).unwrap()));
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), config + " ").unwrap();
    let second = load("f", "sub/net", Device::Cpu, &options).unwrap();
    assert_ne!(first.sha256(), second.sha256());
}

#[cfg(unix)]
#[test]
fn a_link_cannot_leave_the_folder() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    symlink(fixtures().canonicalize().unwrap().join("resnet-timm"), dir.path().join("out")).unwrap();
    let error = load("f", "out", Device::Cpu, &options).unwrap_err().strip_backtrace();
    assert!(error.contains("f: weights 'out' are a link out of wae.weights_dir"), "{error}");
    let folder = dir.path().join("net");
    fs::create_dir(&folder).unwrap();
    let model = fixtures().canonicalize().unwrap().join("resnet-timm/model.safetensors");
    symlink(&model, folder.join("model.safetensors")).unwrap();
    let error = load("f", "net", Device::Cpu, &options).unwrap_err().strip_backtrace();
    assert!(error.contains("it is no file below wae.weights_dir, or a link out of it"), "{error}");
    // As in the cache of Hugging Face: links to other folders below the root.
    fs::copy(&model, dir.path().join("blob")).unwrap();
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    symlink("../blob", folder.join("model.safetensors")).unwrap();
    load("f", "net", Device::Cpu, &options).unwrap();
    load("f", "net/model.safetensors", Device::Cpu, &options).unwrap();
}

#[test]
fn a_folder_or_a_store_that_is_not_there() {
    let error = load("f", "net", Device::Cpu, &options(Path::new("absent"))).unwrap_err().strip_backtrace();
    assert!(error.contains("f: cannot open 'absent' (wae.weights_dir)"), "{error}");
    let error = load("f", "net", Device::Cpu, &options(Path::new("s3://bucket/nets"))).unwrap_err().strip_backtrace();
    assert!(error.contains("f: wae.weights_dir is 's3://bucket/nets', but these options hold no"), "{error}");
    let error = load("f", "s3://bucket/net", Device::Cpu, &options(Path::new("."))).unwrap_err().strip_backtrace();
    assert!(error.contains("f: weights is 's3://bucket/net', but these options hold no object stores"), "{error}");
    for name in ["file:///etc", "/etc", "../net", ""] {
        let error = load("f", name, Device::Cpu, &options(Path::new("."))).unwrap_err().strip_backtrace();
        let expected = format!("f: weights must be a path below wae.weights_dir, without '..', got '{name}'");
        assert!(error.contains(&expected), "{error}");
    }
}

/// A plan shows the name of weights, and a model's file keeps it.
#[test]
fn a_url_with_secrets_is_refused_and_not_shown() {
    let refused = "f: weights must be a URL without user, password, query and fragment: the registered store has them";
    let version = format!("@sha256:{}", "0".repeat(64));
    for (name, expected) in [
        ("s3://user:secret@bucket/net", refused),
        ("s3://secret@bucket/net", refused),
        ("s3://:secret@bucket/net", refused),
        ("https://bucket/net?token=secret", refused),
        ("https://bucket/net#secret", refused),
        ("s3://user:sec/ret@bucket/net", "f: weights of scheme 's3' is no URL: "),
        ("s3://user:1/secret@bucket/net", "f: weights is 's3://…', but these options hold no object stores"),
    ] {
        for name in [name.to_owned(), format!("{name}{version}")] {
            let error = load("f", &name, Device::Cpu, &options(Path::new("."))).unwrap_err().strip_backtrace();
            assert!(error.contains(expected) && !error.contains("ret@") && !error.contains("secret"), "{error}");
        }
    }
}

/// A name with a version is the network of that version, for as long as the cache has it.
#[test]
fn a_version_in_memory_is_kept_and_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json"] {
        fs::copy(fixtures().join("resnet-timm").join(file), dir.path().join(file)).unwrap();
    }
    let options = options(dir.path());
    let planned = load("f", "model.safetensors", Device::Cpu, &options).unwrap();
    let version = versioned("model.safetensors", planned.sha256());
    let again = || load("f", &version, Device::Cpu, &options);
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert!(Arc::ptr_eq(&planned, &again().unwrap()));
    let other = load("f", "model.safetensors", Device::Cpu, &options).unwrap();
    assert_ne!(planned.sha256(), other.sha256());
    let error = again().unwrap_err().strip_backtrace();
    let expected = format!("f: expected weights 'model.safetensors' of sha256 {}, there are others", planned.sha256());
    assert!(error.contains(&expected) && error.contains(other.sha256()), "{error}");
}

/// The node that planned a call holds its network, and so does one that the call travelled to, whatever becomes of the
/// files and of the cache.
#[test]
fn a_pinned_network_is_held() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json"] {
        fs::copy(fixtures().join("resnet-timm").join(file), dir.path().join(file)).unwrap();
    }
    let options = options(dir.path());
    let planned = load("f", "model.safetensors", Device::Cpu, &options).unwrap();
    let version = versioned("model.safetensors", planned.sha256());
    let travelled = PinnedNetwork::travelled();
    assert!(!travelled.is_loaded());
    let first = travelled.load("f", &version, &options).unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    let other = load("f", "model.safetensors", Device::Cpu, &options).unwrap();
    assert!(load("f", &version, Device::Cpu, &options).is_err());
    for pinned in [PinnedNetwork::new(Arc::clone(&planned)), travelled] {
        assert!(pinned.is_loaded() && Arc::ptr_eq(&pinned.load("f", &version, &options).unwrap(), &first));
        // Another version, or none, is not the pinned one.
        let name = versioned("model.safetensors", other.sha256());
        assert!(Arc::ptr_eq(&pinned.load("f", &name, &options).unwrap(), &other));
        assert!(Arc::ptr_eq(&pinned.load("f", "model.safetensors", &options).unwrap(), &other));
    }
}

/// Taken as absent, what is no file would leave out what the network needs of it.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    fs::copy(fixtures().join("resnet-timm/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let config = dir.path().join("config.json");
    let refused = || {
        let error = load("f", "model.safetensors", Device::Cpu, &options).unwrap_err().strip_backtrace();
        assert!(error.contains("weights 'model.safetensors': config.json is no regular file but a folder"), "{error}");
    };
    let mkfifo = std::process::Command::new("mkfifo").arg(&config).status();
    if mkfifo.is_ok_and(|status| status.success()) {
        refused();
        fs::remove_file(&config).unwrap();
    }
    symlink("nothing", &config).unwrap();
    refused();
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    refused();
    fs::remove_dir(&config).unwrap();
    load("f", "model.safetensors", Device::Cpu, &options).unwrap();
}
