//! The daemon.
//!
//! Data flows one way: words and notices of the kernel's programs become inputs of [`core`], which decides and
//! emits commands; [`daemon`] stores the words and hands the events to [`record`]. [`config`] says what is
//! expected of whom, [`api`] and [`cli`] are how operators see and steer it.
//!
//! ```text
//! kernel::collector ─▶ core ─▶ Command ─┬▶ kernel::enforcer
//!        ▲ api: operators               ├▶ record::journal
//!                                       └▶ api (views)
//! ```
//!
//! Only [`daemon`] sees both sides; only [`kernel`] imports aya; [`core`] imports neither clock nor file.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod daemon;
pub mod kernel;
pub mod record;
