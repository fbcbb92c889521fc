//! The table functions, a file or a folder each, and their common part: [`function`] reads a call's arguments,
//! [`source`] its images, [`stream`] computes rows while they are read, and [`work`] does so from a source's images.
//! [`parameters`] plans calls of prepared statements.

pub(crate) mod function;
pub(crate) mod parameters;
mod read_images;
pub(crate) mod source;
mod stream;
pub(crate) mod wae_calibrate;
mod wae_drop;
mod wae_history;
mod wae_models;
mod wae_rename;
mod wae_sample;
pub(crate) mod wae_train;
pub(crate) mod work;
mod worker;

use self::function::TableFunction;

/// The table functions, in the order of the SQL reference.
pub(crate) const ALL: &[&TableFunction] = &[
    &wae_train::WAE_TRAIN,
    &wae_calibrate::WAE_CALIBRATE,
    &wae_sample::WAE_SAMPLE,
    &wae_models::WAE_MODELS,
    &wae_drop::WAE_DROP,
    &wae_rename::WAE_RENAME,
    &wae_history::WAE_HISTORY,
    &read_images::READ_IMAGES,
];
