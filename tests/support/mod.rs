//! What several tests and examples need: the fixtures, and the baselines that a model is held against.
#![allow(dead_code, reason = "each test uses a part")]

pub mod baseline;
pub mod fixture;
