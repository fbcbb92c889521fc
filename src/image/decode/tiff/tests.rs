//! Kinds of TIFF, written tag by tag.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rstest::rstest;

use crate::Error;
use crate::image::{ImageShape, Limits, decode};

/// A TIFF, 3 wide and 2 high, of one strip: 8 bits of grey, or what tags such as `258=16 277=1` say; `273=-` is none.
fn tiff(strip: &[u8], tags: &str) -> Vec<u8> {
    let len = strip.len() as u16;
    let usual = [(256, 3), (257, 2), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, len)];
    let mut fields: BTreeMap<u16, Vec<u16>> = usual.into_iter().map(|(tag, value)| (tag, vec![value])).collect();
    for (tag, values) in tags.split_whitespace().filter_map(|tag| tag.split_once('=')) {
        fields.insert(tag.parse().unwrap(), values.split(',').filter_map(|value| value.parse().ok()).collect());
    }
    fields.retain(|_, values| !values.is_empty());
    let directory = 8 + strip.len().next_multiple_of(2);
    let values = directory + 2 + 12 * fields.len() + 4;
    let mut bytes = [&b"II*\0"[..], &(directory as u32).to_le_bytes(), strip].concat();
    bytes.resize(directory, 0);
    bytes.extend((fields.len() as u16).to_le_bytes());
    let mut outside: Vec<u8> = Vec::new();
    for (tag, list) in fields {
        let mut data: Vec<u8> = list.iter().flat_map(|value| value.to_le_bytes()).collect();
        if data.len() > 4 {
            let place = (values + outside.len()) as u32;
            outside.append(&mut data);
            data.extend(place.to_le_bytes());
        }
        data.resize(4, 0);
        bytes.extend([tag.to_le_bytes(), 3_u16.to_le_bytes()].concat());
        bytes.extend((list.len() as u32).to_le_bytes());
        bytes.extend(data);
    }
    [&bytes[..], &[0; 4], &outside].concat()
}

fn values(bytes: &[u8], channels: Option<usize>) -> Vec<u8> {
    let image = decode(bytes, channels, &Limits::default()).unwrap();
    let channels = channels.unwrap_or(image.shape().channels());
    assert_eq!(image.shape(), ImageShape::new(2, 3, channels));
    image.to_u8()
}

fn message(bytes: &[u8]) -> String {
    let error = decode(bytes, None, &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::Data(_)), "{error:?}");
    error.to_string()
}

#[test]
fn masks_of_more_bits_are_refused() {
    let mask = |bytes: &[u8]| super::super::decode_mask(bytes, &Limits::default());
    let deep = tiff(&[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0], "258=16");
    let error = mask(&deep).unwrap_err().to_string();
    assert_eq!(error, "the mask is a TIFF of 16 bits a sample, expected at most 8, or a PNG of any depth");
    assert_eq!(mask(&tiff(&[0, 1, 0, 0, 9, 255], "")).unwrap().to_u8(), [0, 255, 0, 0, 255, 255]);
}

/// 257·v in 16 bits is v, and 0x01010101·v in 32.
#[rstest]
#[case::bytes(&[0, 1, 127, 128, 254, 255], "")]
#[case::words(&[0, 0, 1, 1, 127, 127, 128, 128, 254, 254, 255, 255], "258=16")]
#[case::white_is_zero(&[255, 254, 128, 127, 1, 0], "262=0")]
#[case::packed_bits(&[5, 0, 1, 127, 128, 254, 255], "259=32773")]
#[case::bits_in_reverse(&[0, 128, 254, 1, 127, 255], "266=2")]
#[case::predictor_of_no_compression(&[0, 1, 127, 128, 254, 255], "317=2")]
#[case::one_bits_for_all(&[0, 9, 1, 9, 127, 9, 128, 9, 254, 9, 255, 9], "258=8 277=2 338=0")]
fn grey(#[case] strip: &[u8], #[case] tags: &str) {
    assert_eq!(values(&tiff(strip, tags), None), [0, 1, 127, 128, 254, 255]);
}

/// Rows begin at a byte: three pixels of 1, 2 or 4 bits and padding.
#[rstest]
#[case::one_bit(&[0b0100_0000, 0b1010_0000], 1, [0, 255, 0, 255, 0, 255])]
#[case::two_bits(&[0b0001_1011, 0b1100_0100], 2, [0, 85, 170, 255, 0, 85])]
#[case::four_bits(&[0x01, 0x2f, 0xe0, 0x10], 4, [0, 17, 34, 238, 0, 17])]
fn few_bits(#[case] strip: &[u8], #[case] bits: u16, #[case] expected: [u8; 6]) {
    assert_eq!(values(&tiff(strip, &format!("258={bits}")), None), expected);
    let inverse = expected.map(|v| 255 - v);
    assert_eq!(values(&tiff(strip, &format!("258={bits} 262=0")), None), inverse);
    // In a palette whose green is the index in 8 bits: the map has 16.
    let colours = 1_u16 << bits;
    let green = (0..colours).map(|i| i * 256);
    let map = (0..colours).map(|_| 0xffff).chain(green).chain((0..colours).map(|_| 0));
    let map: Vec<String> = map.map(|value: u16| value.to_string()).collect();
    let factor = 255 / (colours - 1) as u8;
    let colours: Vec<u8> = expected.iter().flat_map(|v| [255, v / factor, 0]).collect();
    let tags = format!("258={bits} 262=3 320={}", map.join(","));
    assert_eq!(values(&tiff(strip, &tags), None), colours);
}

/// LZW of so few bytes that all codes have 9 bits.
fn lzw(bytes: &[u8]) -> Vec<u8> {
    let mut codes = vec![256];
    let mut table: HashMap<Vec<u8>, u16> = (0..=255).map(|v| (vec![v], v.into())).collect();
    let mut word: Vec<u8> = Vec::new();
    for byte in bytes {
        let longer = [&word[..], &[*byte]].concat();
        if table.contains_key(&longer) {
            word = longer;
            continue;
        }
        codes.push(table[&word]);
        table.insert(longer, table.len() as u16 + 2);
        word = vec![*byte];
    }
    codes.extend([table[&word], 257]);
    let bits: Vec<u8> = codes.iter().flat_map(|code| (0..9).rev().map(move |i| (code >> i & 1) as u8)).collect();
    bits.chunks(8).map(|byte| byte.iter().fold(0, |v, bit| v << 1 | bit) << (8 - byte.len())).collect()
}

/// Tiles of 16×16, of which the image is a corner: their rows go on beyond it.
#[rstest]
#[case::plain(1, false)]
#[case::lzw(5, false)]
#[case::planes(1, true)]
#[case::planes_of_lzw(5, true)]
fn tiles_beyond_the_image(#[case] compression: u16, #[case] planar: bool) {
    let tile = |values: [u8; 6]| {
        let mut tile = vec![0; 256];
        tile[..3].copy_from_slice(&values[..3]);
        tile[16..19].copy_from_slice(&values[3..]);
        if compression == 5 { lzw(&tile) } else { tile }
    };
    let planes = [[1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16], [21, 22, 23, 24, 25, 26]];
    let tiles = planes.map(tile);
    let tiles = if planar { &tiles[..] } else { &tiles[..1] };
    let lengths: Vec<String> = tiles.iter().map(|tile| tile.len().to_string()).collect();
    let offsets = (0..tiles.len()).map(|i| (8 + tiles[..i].concat().len()).to_string());
    let offsets: Vec<String> = offsets.collect();
    let tags = format!("273=- 278=- 279=- 322=16 323=16 324={} 325={}", offsets.join(","), lengths.join(","));
    let colours = if planar { "258=8,8,8 262=2 277=3 284=2" } else { "" };
    let bytes = tiff(&tiles.concat(), &format!("259={compression} {tags} {colours}"));
    let expected =
        if planar { (0..6).flat_map(|i| planes.map(|plane| plane[i])).collect() } else { planes[0].to_vec() };
    assert_eq!(values(&bytes, None), expected);
}

/// Colours 200 and 100 of 255 under an alpha of 255, 200 and 0; multiplied by it, they are 200 and 78.
#[test]
fn alpha_of_each_kind() {
    let straight = [200, 255, 100, 200, 100, 0].repeat(2);
    let multiplied = [200, 255, 78, 200, 0, 0].repeat(2);
    assert_eq!(values(&tiff(&straight, "258=8,8 277=2 338=2"), None), [200, 133, 255].repeat(2));
    assert_eq!(values(&tiff(&multiplied, "258=8,8 277=2 338=1"), None), [200, 133, 255].repeat(2));
    let rgba = [[200, 200, 200, 255], [99, 99, 99, 200], [0, 0, 0, 0]].concat().repeat(2);
    assert_eq!(values(&tiff(&multiplied, "258=8,8 277=2 338=1"), Some(4)), rgba);
    assert_eq!(values(&tiff(&straight, "258=8,8 277=2 338=0"), None), [200, 100, 100].repeat(2));
    // RGB with a fourth sample of which nothing is said, and alpha after a sample that is none.
    let strip: Vec<u8> = straight.chunks(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect();
    let over_white: Vec<u8> = [200, 133, 255].repeat(2).into_iter().flat_map(|v| [v; 3]).collect();
    assert_eq!(values(&tiff(&strip, "258=8,8,8,8 262=2 277=4"), None), over_white);
    let strip: Vec<u8> = straight.chunks(2).flat_map(|p| [p[0], p[0], p[0], 7, p[1]]).collect();
    assert_eq!(values(&tiff(&strip, "258=8,8,8,8,8 262=2 277=5 338=0,2"), None), over_white);
}

#[rstest]
#[case::halves(16, 3)]
#[case::floats(32, 3)]
#[case::doubles(64, 3)]
#[case::integers(32, 1)]
#[case::long_integers(64, 1)]
fn deep_samples(#[case] bits: u16, #[case] format: u16) {
    let bytes = [0_u8, 51, 102, 153, 204, 255];
    let of = |v: u8| match (bits, format) {
        (16, _) => half::f16::from_f32(f32::from(v) / 255.0).to_le_bytes().to_vec(),
        (32, 3) => (f32::from(v) / 255.0).to_le_bytes().to_vec(),
        (64, 3) => (f64::from(v) / 255.0).to_le_bytes().to_vec(),
        _ => vec![v; usize::from(bits / 8)],
    };
    let strip: Vec<u8> = bytes.into_iter().flat_map(of).collect();
    assert_eq!(values(&tiff(&strip, &format!("258={bits} 339={format}")), None), bytes);
}

#[rstest]
#[case::rounding(1.000_009, None)]
#[case::below(-0.000_009, None)]
#[case::of_255(254.0, Some("254"))]
#[case::negative(-0.5, Some("-0.5"))]
#[case::not_a_number(f32::NAN, Some("NaN"))]
fn floats_outside(#[case] value: f32, #[case] refused: Option<&str>) {
    let strip = [value.to_le_bytes(); 6].concat();
    let bytes = tiff(&strip, "258=32 339=3");
    match refused {
        None => assert_eq!(values(&bytes, None), [if value > 0.5 { 255 } else { 0 }; 6]),
        Some(text) => {
            let expected = format!("the image is a TIFF of floats with a value of {text}, expected 0 to 1");
            assert_eq!(message(&bytes), expected);
        }
    }
}

#[rstest]
#[case::zstd("259=50000", "Zstandard compression")]
#[case::old_jpeg("259=6", "JPEG compression of the old kind")]
#[case::fax("259=3", "fax compression of another kind than Group 4")]
#[case::fax_of_bytes("259=4", "fax compression of 8-bit samples, 1 a pixel")]
#[case::another_compression("259=777", "compression 777")]
#[case::twelve_bits("258=12", "12-bit samples")]
#[case::many_bits("258=65535", "65535-bit samples")]
#[case::bits_that_differ("258=5,6,5 262=2 277=3", "bits a sample that differ between channels: 5 and 6")]
#[case::signed("339=2", "signed integers")]
#[case::complex("258=64 339=6", "complex numbers")]
#[case::undefined("339=4", "samples of an undefined type")]
#[case::floats_of_a_byte("339=3", "floats of 8 bits")]
#[case::lab("258=8,8,8 262=8 277=3", "CIE L*a*b* colours")]
#[case::mask("262=4", "a transparency mask alone")]
#[case::sensor("262=32803", "raw values of a camera's sensor")]
#[case::another_photometry("262=7", "photometric interpretation 7")]
#[case::chroma("258=8,8,8 262=6 277=3", "YCbCr colours of fewer samples than pixels, without JPEG compression")]
#[case::jpeg_of_two("258=8,8 259=7 277=2 338=2", "JPEG compression of 2 samples a pixel")]
#[case::inks("258=8,8,8,8 262=5 277=4 332=2", "other inks than CMYK")]
#[case::bands("258=8,8,8,8,8,8,8 277=7", "7 samples a pixel, of which its tags explain 1")]
#[case::no_samples("277=0", "0 samples a pixel, of which its tags explain 1")]
#[case::float_predictor("259=8 317=3", "predictor 3 of 8-bit samples")]
#[case::deep_palette("258=16 262=3", "a palette of 16-bit samples")]
fn refused_by_name(#[case] tags: &str, #[case] kind: &str) {
    let message = message(&tiff(&[0; 64], tags));
    assert_eq!(message, format!("the image is a TIFF with {kind}, which is not supported"));
}

/// Claims of a file are checked before memory is taken, and before the decoder multiplies them.
#[rstest]
#[case::pixels("256=65535 257=65535", "the image declares 65535 × 65535 = 4294836225 pixels")]
#[case::no_width("256=0", "its tag 256 is missing or 0, expected a number of pixels")]
#[case::samples(&format!("256=8192 257=8192 277=40 338={}", ["0"; 39].join(",")), "the limit max_pixels = ")]
#[case::no_palette("262=3", "its palette has 0 values, expected 768")]
#[case::offset("273=65535", "it is truncated")]
#[case::tile(
    "258=32 322=65535 323=65535 324=8 325=6 339=3",
    "the image takes 17179344900 bytes, the limit max_pixels = "
)]
#[case::jpeg("259=7", "a JPEG stream in it is truncated")]
fn claims(#[case] tags: &str, #[case] text: &str) {
    let message = message(&tiff(&[0; 6], tags));
    assert!(message.contains(text), "{message}");
}

/// A JPEG stream whose header declares another size than the strip.
#[test]
fn jpeg_of_another_size() {
    let stream = |height: u8, components: u8| {
        let frame = [0xff, 0xc0, 0, 11, 8, 0, height, 0, 3, components, 1, 0x11, 0];
        [&[0xff, 0xd8, 0xff, 0xff, 0xe0, 0, 2][..], &frame, &[0xff, 0xda, 0, 2, 0, 0xff, 0xd9]].concat()
    };
    let text = "a JPEG stream in it has another size than its strip or tile";
    for stream in [stream(200, 1), stream(2, 3)] {
        assert!(message(&tiff(&stream, "259=7")).contains(text));
    }
    assert!(!message(&tiff(&stream(2, 1), "259=7")).contains(text));
    assert!(message(&tiff(&[0xff, 0xd8, 0xff, 0xda, 0, 2, 0xff, 0xd9], "259=7")).contains(text));
}

#[test]
fn big_tiffs_of_unknown_types_are_refused() {
    let header = [&b"II+\0\x08\0\0\0"[..], &16_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    let entry = [&[0, 1, 99, 0][..], &1_u64.to_le_bytes(), &[0; 8], &[0; 8]].concat();
    let message = message(&[header, entry].concat());
    assert_eq!(message, "the image is not readable: the TIFF is damaged: tag 256 has the unknown type 99");
}

proptest! {
    /// Any values of any tags give an image or an error.
    #[test]
    fn no_tags_panic(
        strip in prop::collection::vec(any::<u8>(), 0..80),
        tags in prop::collection::vec(
            (prop_oneof![256_u16..263, 266_u16..280, Just(284), Just(317), 320_u16..326, 338_u16..340],
             prop::collection::vec(prop_oneof![0_u16..9, any::<u16>()], 1..5)),
            0..6,
        ),
        bits in prop_oneof![Just(1_u16), Just(2), Just(4), Just(8), Just(16), Just(32), Just(64)],
        compression in prop_oneof![Just(1_u16), Just(4), Just(5), Just(7), Just(8), Just(32_773)],
        colours in 0_u16..7,
    ) {
        let tag = |(tag, values): (u16, Vec<u16>)| {
            let values: Vec<String> = values.iter().map(u16::to_string).collect();
            format!(" {tag}={}", values.join(","))
        };
        let tags: String = tags.into_iter().map(tag).collect();
        let tags = format!("258={bits} 259={compression} 262={colours}{tags}");
        for channels in [None, Some(1), Some(4)] {
            let limits = Limits { max_pixels: 1 << 12, ..Limits::default() };
            if let Ok(image) = decode(&tiff(&strip, &tags), channels, &limits) {
                prop_assert_eq!(image.to_u8().len(), image.shape().len());
            }
        }
    }
}
