//! The command. Everything it does is in [`agentsec::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    agentsec::cli::main()
}
