#![doc = include_str!("links.md")]
#![doc = include_str!("README.md")]

// Each page begins with links.md: of two definitions of a link, the first counts. So the pages link to each other here,
// and by their own definitions, to files, where they are read in the repository.

#[doc = include_str!("links.md")]
#[doc = include_str!("images.md")]
pub mod images {}

#[doc = include_str!("links.md")]
#[doc = include_str!("forms.md")]
pub mod forms {}

#[doc = include_str!("links.md")]
#[doc = include_str!("features.md")]
pub mod features {}

#[doc = include_str!("links.md")]
#[doc = include_str!("training.md")]
pub mod training {}

#[doc = include_str!("links.md")]
#[doc = include_str!("scores.md")]
pub mod scores {}

#[doc = include_str!("links.md")]
#[doc = include_str!("objectives.md")]
pub mod objectives {}

#[doc = include_str!("links.md")]
#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[doc = include_str!("links.md")]
#[doc = include_str!("devices.md")]
pub mod devices {}

#[doc = include_str!("links.md")]
#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("links.md")]
#[doc = include_str!("one_pass.md")]
pub mod one_pass {}

#[doc = include_str!("links.md")]
#[doc = include_str!("hosts.md")]
pub mod hosts {}

#[doc = include_str!("links.md")]
#[doc = include_str!("python.md")]
pub mod python {}

#[doc = include_str!("links.md")]
#[doc = include_str!("cluster.md")]
pub mod cluster {}

#[doc = include_str!("links.md")]
#[doc = include_str!("model_file.md")]
pub mod model_file {}

#[doc = include_str!("links.md")]
#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("links.md")]
#[doc = include_str!("upstream.md")]
pub mod upstream {}

#[doc = include_str!("links.md")]
#[doc = include_str!("reference.md")]
pub mod reference {}
