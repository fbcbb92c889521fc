//! How plans travel: Ballista's own codecs, with what calls of the plugin's functions carry.

mod logical;
mod physical;

pub use self::logical::WaeLogicalCodec;
pub use self::physical::WaePhysicalCodec;
