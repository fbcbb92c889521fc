//! The orientation that a PNG file states: in its eXIf chunk, or in a text, where ImageMagick keeps EXIF.

use std::io::Read;
use std::iter;

use ::image::metadata::Orientation;
use flate2::bufread::ZlibDecoder;

/// The keyword of a text that holds EXIF.
const KEYWORD: &[u8] = b"Raw profile type exif\0";
/// The most bytes of a text that are inflated: twice those that a JPEG file has room for. The orientation stands at the
/// beginning.
const MOST_TEXT: u64 = 256 << 10;

/// The orientation, if the file states one: wherever the chunk stands, also behind the pixels. An eXIf chunk counts
/// before a text. Checksums are not looked at, and what is damaged states nothing.
pub(super) fn orientation(png: &[u8]) -> Option<Orientation> {
    let mut profile = None;
    for (kind, data) in chunks(png) {
        if kind == *b"eXIf" {
            return of_exif(data);
        }
        // One text only, so that many that grow when inflated cost no time.
        profile = profile.or_else(|| Profile::of(kind, data));
    }
    of_exif(&profile?.exif())
}

/// The kinds of a file's chunks and their data.
fn chunks(png: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = png.get(8..).unwrap_or_default(); // behind the signature
    iter::from_fn(move || {
        let (head, body) = rest.split_first_chunk::<8>()?;
        let [a, b, c, d, kind @ ..] = *head;
        let (data, after) = body.split_at_checked(u32::from_be_bytes([a, b, c, d]).try_into().ok()?)?;
        rest = after.get(4..).unwrap_or_default(); // behind the checksum
        Some((kind, data))
    })
}

fn of_exif(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

/// A text that holds EXIF.
#[derive(Debug)]
struct Profile<'a> {
    is_compressed: bool,
    text: &'a [u8],
}

impl<'a> Profile<'a> {
    /// The text of a chunk, if its keyword says that it is EXIF.
    fn of(kind: [u8; 4], data: &'a [u8]) -> Option<Self> {
        let rest = data.strip_prefix(KEYWORD)?;
        let (is_compressed, text) = match (&kind, rest) {
            (b"tEXt", text) => (false, text),
            (b"zTXt", [0, text @ ..]) => (true, text),
            // The language and the keyword in that language come before the text.
            (b"iTXt", [flag, _, rest @ ..]) => (*flag != 0, rest.splitn(3, |byte| *byte == 0).nth(2)?),
            _ => return None,
        };
        Some(Self { is_compressed, text })
    }

    /// The bytes: a line has the profile's name, one its length, and the others its bytes in hexadecimal digits.
    fn exif(&self) -> Vec<u8> {
        let mut inflated = Vec::new();
        let mut text = self.text;
        if self.is_compressed {
            // Of damaged data, what comes before the damage is taken.
            let _ = ZlibDecoder::new(text).take(MOST_TEXT).read_to_end(&mut inflated);
            text = &inflated;
        }
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let digits = lines.skip(2).flatten().map_while(|digit| char::from(*digit).to_digit(16));
        let digits: Vec<u8> = digits.map(|digit| digit as u8).collect();
        digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
    }
}
