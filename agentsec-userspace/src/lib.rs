//! The daemon.
//!
//! Data flows one way: words and notices of the kernel's programs become inputs of [`core`], which decides and
//! emits commands; the daemon stores the words and hands the events to [`record`]. [`config`] says what is
//! expected of whom.

pub mod config;
pub mod core;
pub mod record;
