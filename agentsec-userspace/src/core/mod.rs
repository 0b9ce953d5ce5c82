//! Decides: pure.
pub mod settings;
