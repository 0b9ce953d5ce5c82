//! `cargo xtask`: everything that is done to this repository from a command line.
//!
//! Each verb calls the verbs it rests on, so `cargo xtask test` is all that a fresh clone needs:
//!
//! ```text
//! setup ◀─ build ◀─ check ◀─ test
//!              ▲─ demo, bench, vm
//! ```

mod check;
mod cli;
mod compile;
mod facts;
mod fuzz;
mod need;
mod run;
mod setup;
mod step;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {}", step::paint("31;1", "error:"), step::chain(&error));
            ExitCode::FAILURE
        }
    }
}
