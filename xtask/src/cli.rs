//! The command line: what can be asked for, and who does it.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::compile::Profile;
use crate::need::Scope;
use crate::step::Progress;
use crate::vm::{self, Kernel};
use crate::{check, compile, fuzz, run, setup, test};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set up, build, check, test and show AgentSec")]
struct Cli {
    /// Show the output of every step as it comes, not only of one that fails
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing need; quick when it is all there
    Setup {
        /// Only report what is missing; fails when something is
        #[arg(long)]
        check: bool,
    },
    /// Build the kernel programs, then the daemon that carries them
    Build {
        /// Build the daemon optimized (the kernel programs always are)
        #[arg(long)]
        release: bool,
    },
    /// Check format, lints, and the dependencies' licences and sources
    Check {
        /// Also ask the advisory database, which needs the network and changes from day to day
        #[arg(long)]
        advisories: bool,
    },
    /// Set up, check, build and run all tests (as root: they use real kernels)
    Test {
        /// Run only the tests whose name contains this
        filter: Option<String>,
        /// What follows `--` goes to the test programs
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the kernels' tests on Debian's kernels in emulated machines
    Vm {
        /// The kernel to boot
        #[arg(long, default_value = "all")]
        kernel: Kernels,
        /// Also print what came of it as JSON
        #[arg(long)]
        json: bool,
        /// Run only the tests whose name contains this
        filter: Option<String>,
    },
    /// Look for bytes that break a parser, by libFuzzer
    Fuzz {
        /// The target; every one in turn if none is named
        target: Option<String>,
        /// How long for each
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Show a compromised agent being contained, on this host (as root)
    Demo(LabArgs),
    /// Measure the cost of containment on this host (as root)
    Bench(LabArgs),
}

/// Which kernels to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    All,
    One(Kernel),
}

impl clap::ValueEnum for Kernels {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::All, Self::One(Kernel::V6_1), Self::One(Kernel::V6_12)]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::All => Some("all".into()),
            Self::One(kernel) => kernel.to_possible_value(),
        }
    }
}

impl Kernels {
    fn list(self) -> Vec<Kernel> {
        match self {
            Self::All => vm::ALL.to_vec(),
            Self::One(kernel) => vec![kernel],
        }
    }
}

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct LabArgs {
    /// Handed to agentsec-lab as they are, for example `--json`, `--keep` or `--help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Does what the command line asks for.
pub fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    let progress = Progress::new(cli.verbose);
    match cli.verb {
        Verb::Setup { check: true } => return setup::report(),
        Verb::Setup { check: false } => setup::announce(&progress)?,
        Verb::Build { release } => {
            let profile = if release { Profile::Release } else { Profile::Dev };
            let tools = setup::ensure(&progress, Scope::Build)?;
            let object = compile::kernel_object(&progress, &tools)?;
            compile::daemon_and_lab(&progress, profile, &object)?;
        }
        Verb::Fuzz { target, seconds } => fuzz::fuzz(&progress, target.as_deref(), seconds)?,
        Verb::Check { advisories } => {
            let tools = setup::ensure(&progress, Scope::Check)?;
            let object = compile::kernel_object(&progress, &tools)?;
            check::all(&progress, &tools, &object)?;
            if advisories {
                check::advisories(&progress)?;
            }
        }
        Verb::Test { filter, args } => return test::run(&progress, filter.as_deref(), &args),
        Verb::Vm { kernel, json, filter } => {
            return vm::command(&progress, &kernel.list(), filter.as_deref(), json);
        }
        Verb::Demo(lab) => run::lab(&progress, "demo", &lab.args)?,
        Verb::Bench(lab) => run::lab(&progress, "bench", &lab.args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kernels_are_asked_for_by_name_and_all_are_booted_unless_told() {
        let kernels = |line: &[&str]| match Cli::parse_from(line).verb {
            Verb::Vm { kernel, .. } => kernel.list(),
            _ => panic!("vm was asked for"),
        };
        assert_eq!(kernels(&["xtask", "vm"]), vm::ALL);
        assert_eq!(kernels(&["xtask", "vm", "--kernel", "6.12", "some_test"]), [Kernel::V6_12]);
    }

    #[test]
    fn the_lab_gets_its_arguments_untouched() {
        let cli = Cli::parse_from(["xtask", "demo", "--json", "--keep", "-v", "x", "--help"]);
        let Verb::Demo(lab) = cli.verb else { panic!("demo was asked for") };
        assert_eq!(lab.args, ["--json", "--keep", "-v", "x", "--help"]);
        assert!(!cli.verbose);
    }
}
