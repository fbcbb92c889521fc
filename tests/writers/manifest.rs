//! `fixtures/writers/forms.json`: the pictures, and the columns that show them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The name of pictures of which only an error is right.
const NO_PICTURES: &str = "none";

/// The repository's root, from which statements name files. All tests of this binary run there.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::env::set_current_dir(root).unwrap();
    root.to_owned()
}

#[derive(Deserialize)]
pub struct Manifest {
    /// Packages and their versions, by writer.
    pub versions: BTreeMap<String, String>,
    pub pictures: BTreeMap<String, Pictures>,
    pub forms: Vec<Form>,
}

impl Manifest {
    pub fn read() -> Self {
        serde_json::from_slice(&fs::read(root().join("fixtures/writers/forms.json")).unwrap()).unwrap()
    }
}

#[derive(Deserialize)]
pub struct Pictures {
    /// Height, width, channels.
    pub shape: Vec<i32>,
    /// The values of each picture, (H, W, C).
    pub pixels: Vec<Vec<u8>>,
}

/// A column of a table that a tool wrote.
#[derive(Deserialize)]
pub struct Form {
    pub writer: String,
    pub file: String,
    pub column: String,
    /// Its name on the page.
    pub form: String,
    pub pictures: String,
    /// An expression over the column `{}` that says what the type does not.
    call: Option<String>,
    /// The option of wae_train that says it, where there is one.
    layout: Option<String>,
    /// How far costs may be off where the writer rounds.
    pub tolerance: Option<f64>,
}

/// A way to read a form: the image as SQL, the table, and further options of a training.
pub struct Reading<'a> {
    pub form: &'a Form,
    pub image: String,
    /// The image in a training, whose options may say what the call says elsewhere.
    pub trained: String,
    pub options: String,
    pub source: String,
}

impl Form {
    /// A column of a table of the session.
    pub fn of_table(column: &str, table: &str, pictures: &str) -> Self {
        let [writer, form] = [""; 2].map(str::to_owned);
        let [file, column, pictures] = [table, column, pictures].map(str::to_owned);
        Self { writer, file, column, form, pictures, call: None, layout: None, tolerance: None }
    }

    /// The pictures that it shows.
    pub fn kind(&self) -> Option<&str> {
        Some(&*self.pictures).filter(|kind| *kind != NO_PICTURES)
    }

    /// The column as it is.
    pub fn as_written(&self) -> Reading<'_> {
        let image = format!("\"{}\"", self.column);
        let mut source = self.file.clone();
        if source.contains('.') && !source.starts_with('\'') {
            source = format!("'fixtures/writers/{source}'");
        }
        Reading { form: self, trained: image.clone(), image, options: String::new(), source }
    }

    /// The column as it is, and by the call that names what its type does not.
    pub fn readings(&self) -> Vec<Reading<'_>> {
        let plain = self.as_written();
        let Some(call) = &self.call else { return vec![plain] };
        let image = call.replace("{}", &plain.image);
        let source = plain.source.clone();
        let named = match &self.layout {
            Some(layout) => {
                let options = format!(", layout => '{layout}'");
                Reading { form: self, trained: plain.image.clone(), image, options, source }
            }
            None => Reading { form: self, trained: image.clone(), image, options: String::new(), source },
        };
        vec![plain, named]
    }
}

impl Reading<'_> {
    /// The first column of the page.
    pub fn label(&self) -> String {
        let image = self.image.replace(&format!("\"{}\"", self.form.column), "image");
        match (image == "image", self.options.strip_prefix(", ")) {
            (true, _) => self.form.form.clone(),
            (false, None) => format!("… `{image}`"),
            (false, Some(option)) => format!("… `{image}`; trained with `{option}`"),
        }
    }
}
