//! The reader of image columns: encoded bytes, nested lists with any lengths and nulls, tensors with any shapes,
//! dictionaries with any keys. Every row gives an image or an error, and a buffer is as long as its shape says.
//!
//! A file that begins as an image does is taken as one, so that images serve as seeds; the rest is read as a
//! [`Column`].
#![no_main]

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, DictionaryArray, Float32Array, Int32Array, LargeBinaryArray,
    ListArray, PrimitiveArray, StructArray, UInt8Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, UInt8Type};
use libfuzzer_sys::fuzz_target;
use wae_core::image::{ImageColumn, ImageShape, Limits, Preprocess, decode};

const LIMITS: Limits = Limits { max_pixels: 1 << 16, max_image_bytes: 1 << 16 };

#[derive(Debug, Arbitrary)]
enum Column {
    Encoded {
        kind: u8,
        rows: Vec<Option<Vec<u8>>>,
    },
    /// Lists of lists of values, the lengths of each level, which rows are null on each.
    Nested {
        outer: Vec<u8>,
        inner: Vec<u8>,
        nulls: Vec<bool>,
        bytes: Vec<u8>,
        floats: bool,
    },
    Flat {
        lengths: Vec<u8>,
        bytes: Vec<u8>,
        nulls: Vec<bool>,
    },
    Variable {
        lengths: Vec<u8>,
        bytes: Vec<u8>,
        shapes: Vec<[Option<i32>; 3]>,
    },
    Dictionary {
        keys: Vec<Option<u8>>,
        rows: Vec<Option<Vec<u8>>>,
    },
}

/// A list of as many rows as lengths that fit the values.
fn list(values: ArrayRef, lengths: &[u8], nulls: &[bool]) -> Option<ListArray> {
    let mut left = values.len();
    let fits = |length: &&u8| {
        let fits = usize::from(**length) <= left;
        left -= if fits { usize::from(**length) } else { 0 };
        fits
    };
    let lengths: Vec<usize> = lengths.iter().take_while(fits).map(|l| usize::from(*l)).collect();
    let nulls = NullBuffer::from_iter((0..lengths.len()).map(|i| !nulls.get(i).copied().unwrap_or(false)));
    let field = Field::new("item", values.data_type().clone(), true);
    ListArray::try_new(field.into(), OffsetBuffer::from_lengths(lengths), values, Some(nulls)).ok()
}

fn array(column: Column) -> Option<ArrayRef> {
    let pixels = |bytes: Vec<u8>, floats: bool, nulls: &[bool]| -> ArrayRef {
        let null = |i: usize| nulls.get(i % (nulls.len() + 1)).copied().unwrap_or(false);
        match floats {
            true => {
                let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                Arc::new(Float32Array::from_iter(floats.enumerate().map(|(i, v)| (!null(i)).then_some(v))))
            }
            false => {
                Arc::new(UInt8Array::from_iter(bytes.into_iter().enumerate().map(|(i, v)| (!null(i)).then_some(v))))
            }
        }
    };
    let array: ArrayRef = match column {
        Column::Encoded { kind, rows } => match kind % 4 {
            0 => Arc::new(BinaryArray::from_iter(rows)),
            1 => Arc::new(LargeBinaryArray::from_iter(rows)),
            2 => Arc::new(BinaryViewArray::from_iter(rows)),
            _ => {
                let bytes = Arc::new(BinaryArray::from_iter(rows)) as ArrayRef;
                Arc::new(StructArray::from(vec![(Arc::new(Field::new("bytes", DataType::Binary, true)), bytes)]))
            }
        },
        Column::Nested { outer, inner, nulls, bytes, floats } => {
            let inner = list(pixels(bytes, floats, &nulls), &inner, &nulls)?;
            Arc::new(list(Arc::new(inner), &outer, &nulls)?)
        }
        Column::Flat { lengths, bytes, nulls } => Arc::new(list(pixels(bytes, false, &nulls), &lengths, &nulls)?),
        Column::Variable { lengths, bytes, shapes } => {
            let data = list(pixels(bytes, false, &[]), &lengths, &[])?;
            let rows = data.len().min(shapes.len());
            let sizes: Int32Array = shapes.into_iter().take(rows).flatten().collect();
            let field = Arc::new(Field::new("item", DataType::Int32, true));
            let sizes = arrow::array::FixedSizeListArray::try_new(field, 3, Arc::new(sizes), None).ok()?;
            let named = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
            let (data, sizes) = (Arc::new(data.slice(0, rows)) as ArrayRef, Arc::new(sizes) as ArrayRef);
            Arc::new(StructArray::from(vec![(named("data", &data), data), (named("shape", &sizes), sizes)]))
        }
        Column::Dictionary { keys, rows } => {
            let values: ArrayRef = Arc::new(BinaryArray::from_iter(rows));
            let keys: PrimitiveArray<UInt8Type> = keys.into_iter().collect();
            Arc::new(DictionaryArray::<UInt8Type>::try_new(keys, values).ok()?)
        }
    };
    Some(array)
}

fn image(bytes: &[u8]) {
    for channels in [None, Some(1), Some(4)] {
        if let Ok(image) = decode(bytes, channels, &LIMITS) {
            assert_eq!(image.to_u8().len(), image.shape().len());
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let [0x89, b'P', ..]
    | [0xff, 0xd8, ..]
    | [b'R', b'I', ..]
    | [b'G', b'I', ..]
    | [b'B', b'M', ..]
    | [b'I', b'I', ..]
    | [b'M', b'M', ..] = bytes
    {
        return image(bytes);
    }
    let Some(array) = Column::arbitrary(&mut Unstructured::new(bytes)).ok().and_then(array) else { return };
    let field = Field::new("image", array.data_type().clone(), true);
    let shape = ImageShape::new(2, 2, 1);
    let preprocess = Preprocess::try_new(None, Some((2, 2))).ok();
    for array in [Arc::clone(&array), array.slice(array.len() / 2, array.len() - array.len() / 2)] {
        let Ok(column) = ImageColumn::try_new(&field, &array, Some(shape)) else { continue };
        assert_eq!(column.len(), array.len());
        for row in 0..column.len() {
            assert!(!column.is_null(row) || column.image(row, None, &LIMITS).is_err());
            if let Ok(pixels) = column.read(&[row], shape, preprocess.as_ref(), &LIMITS) {
                assert_eq!(pixels.len(), shape.len());
                assert!(pixels.iter().all(|v| (0.0..=1.0).contains(v)));
            }
        }
    }
});
