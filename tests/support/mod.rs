//! The fixtures as the engine reads them, and the baselines that a model is compared with. Tests of the plugin share
//! `session.rs`.
#![allow(dead_code, reason = "each test uses a part")]

pub mod baseline;
pub mod fixture;
