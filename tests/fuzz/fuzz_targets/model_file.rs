//! The model reader: any bytes give a model or an error, and a model that is read can be loaded, written and read
//! again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wae_core::{Device, ModelFile, Precision, Wae};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = ModelFile::from_bytes(bytes) else { return };
    let again = ModelFile::from_bytes(&file.to_bytes().unwrap()).unwrap();
    assert_eq!(file, again);
    // Norms whose product with the weights is no finite number are refused here.
    let Ok(wae) = Wae::try_new(&file, Device::Cpu, Precision::F32) else { return };
    let image = file.config().image().len();
    if image <= 1 << 12 && file.parameters() <= 1 << 16 {
        // Weights may be of any size, and costs then no numbers; the shapes are the configuration's.
        let codes = wae.encode(&vec![0.5_f32; image]).unwrap();
        assert_eq!(codes.len(), file.config().latent_dim());
        assert_eq!(wae.decode(&codes).unwrap().len(), image);
    }
});
