//! The daemon.

pub mod api;
pub mod cli;
pub mod kernel;
