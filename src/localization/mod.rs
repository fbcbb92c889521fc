//! Where an image is strange: connected regions of its map, and how well a map finds what a mask marks.

mod curve;
mod defects;
mod regions;

pub use self::curve::PixelCurve;
pub use self::defects::DefectMask;
pub use self::regions::{Region, mark, regions};
