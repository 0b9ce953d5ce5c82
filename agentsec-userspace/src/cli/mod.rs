//! The command line: one file per verb.
//!
//! A verb asks the daemon over its socket ([`crate::api::client`]), or works on the machine itself (`run`,
//! `check-config`, `doctor`, and the break-glass verbs), and ends with an [`exit::Exit`].

mod agents;
mod bundle;
mod chain;
mod check_config;
mod doctor;
mod endpoints;
mod error;
mod events;
mod exempt;
pub mod exit;
mod explain;
mod job;
mod log;
mod new_file;
mod operate;
mod output;
mod progress;
mod quarantine;
mod recorder;
mod recover;
mod release;
mod reload;
mod report;
pub mod run;
mod selection;
mod shadow;
mod snapshot;
mod status;
mod style;
mod table;
mod units;
mod unload;

use std::path::PathBuf;
use std::process::ExitCode;

pub use run::RunOptions;

use clap::{Args, Parser, Subcommand};

use crate::api::client::Client;
use error::CliError;
use exit::Exit;
use output::Output;

/// What a verb comes to.
type Outcome = Result<Exit, CliError>;

/// Contains compromised AI agents at machine speed.
#[derive(Debug, Parser)]
#[command(name = "agentsec", version, max_term_width = 110, after_help = exit::help())]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb takes, before or after its name.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Directory of the daemon's sockets
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/agentsec")]
    run_dir: PathBuf,
    /// Directory of the daemon's state: events, evidence, snapshots
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/agentsec")]
    state_dir: PathBuf,
    /// Directory in a BPF file system where programs and maps are pinned
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys/fs/bpf/agentsec")]
    pin_path: PathBuf,
    /// Write JSON, with exact numbers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground
    Run(run::Args),
    /// Check a configuration without touching anything
    CheckConfig(check_config::Args),
    /// Put the edited configuration into force, or say what is wrong with it
    Reload(reload::Args),
    /// Check what this machine offers and what stands in the way
    Doctor(doctor::Args),
    /// Show the daemon and every agent
    Status(status::Args),
    /// List the agents and where they meet the kernel
    Agents(agents::Args),
    /// List whom an agent talks to
    Endpoints(endpoints::Args),
    /// Say why an agent is in its state, and what would change it
    Explain(explain::Args),
    /// Show the latest packets of an agent, or write them as pcapng
    Recorder(recorder::Args),
    /// Show forensic events
    Events(events::Args),
    /// Reconstruct how far a compromise came: from agent to agent, to the outside, and what stopped it
    Chain(chain::Args),
    /// Record an interaction that no packet shows, as an application knows it
    Report(report::Args),
    /// Work on the forensic log itself
    Log(log::Args),
    /// Open circuits: drop everything that an agent, or every agent of a tag, sends and receives
    Quarantine(quarantine::Args),
    /// Let contained agents out; with --all also when no daemon runs
    Release(release::Args),
    /// Judge agents without dropping anything, or end that
    Shadow(shadow::Args),
    /// Neither judge agents nor drop anything of them, or end that
    Exempt(exempt::Args),
    /// List, show and export what was collected of agents when they tripped; needs no daemon
    Bundle(bundle::Args),
    /// Take, list, verify and restore snapshots of an agent's state
    Snapshot(snapshot::Args),
    /// Bring an agent back from a known-good snapshot
    Recover(recover::Args),
    /// Break-glass: remove all programs, maps and links from the kernel
    Unload(unload::Args),
}

/// What every verb works with.
struct Context {
    global: Global,
    client: Client,
    output: Output,
}

/// Parses the command line, runs its verb and says how that went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context {
        client: Client::new(&cli.global.run_dir),
        output: Output::of_this_process(cli.global.json),
        global: cli.global,
    };
    let exit = dispatch(cli.verb, &context).unwrap_or_else(|error| context.output.error(&error));
    ExitCode::from(exit.code())
}

fn dispatch(verb: Verb, context: &Context) -> Outcome {
    match verb {
        Verb::Run(args) => args.run(context),
        Verb::CheckConfig(args) => args.run(context),
        Verb::Reload(args) => asynchronously(args.run(context)),
        Verb::Doctor(args) => asynchronously(args.run(context)),
        Verb::Status(args) => asynchronously(args.run(context)),
        Verb::Agents(args) => asynchronously(args.run(context)),
        Verb::Endpoints(args) => asynchronously(args.run(context)),
        Verb::Explain(args) => asynchronously(args.run(context)),
        Verb::Recorder(args) => asynchronously(args.run(context)),
        Verb::Events(args) => asynchronously(args.run(context)),
        Verb::Chain(args) => asynchronously(args.run(context)),
        Verb::Report(args) => asynchronously(args.run(context)),
        Verb::Log(args) => args.run(context),
        Verb::Quarantine(args) => asynchronously(args.run(context)),
        Verb::Release(args) => asynchronously(args.run(context)),
        Verb::Shadow(args) => asynchronously(args.run(context)),
        Verb::Exempt(args) => asynchronously(args.run(context)),
        Verb::Bundle(args) => args.run(context),
        Verb::Snapshot(args) => args.run(context),
        Verb::Recover(args) => asynchronously(args.run(context)),
        Verb::Unload(args) => asynchronously(args.run(context)),
    }
}

fn asynchronously(verb: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CliError::failure(format!("starting the runtime: {error}")))?.block_on(verb)
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
    fn global_flags_go_before_or_after_the_verb() {
        for line in [["agentsec", "--json", "status"], ["agentsec", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
    }

    #[test]
    fn a_release_is_of_one_agent_or_of_all() {
        for line in [&["agentsec", "release"][..], &["agentsec", "release", "crawler", "--all"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), i32::from(Exit::Usage.code()));
        }
        assert!(Cli::try_parse_from(["agentsec", "release", "--all", "--force"]).is_ok());
        assert!(Cli::try_parse_from(["agentsec", "release", "crawler"]).is_ok());
        assert!(Cli::try_parse_from(["agentsec", "release", "--tag", "batch"]).is_ok());
        assert!(Cli::try_parse_from(["agentsec", "release", "--tag", "batch", "--all"]).is_err());
    }

    #[test]
    fn whom_is_an_agent_or_a_tag() {
        for verb in ["release", "shadow", "exempt"] {
            let parse = |rest: &[&str]| Cli::try_parse_from([&["agentsec", verb], rest].concat());
            assert!(parse(&["crawler"]).is_ok() && parse(&["--tag", "batch"]).is_ok(), "{verb}");
            for wrong in [&[][..], &["crawler", "--tag", "batch"], &["--tag"]] {
                let error = parse(wrong).unwrap_err();
                assert_eq!(error.exit_code(), i32::from(Exit::Usage.code()), "{verb} {wrong:?}");
            }
        }
    }

    #[test]
    fn endpoints_are_chosen_by_flags_that_do_not_contradict_each_other() {
        let parse = |rest: &[&str]| Cli::try_parse_from([&["agentsec", "endpoints", "a"], rest].concat());
        for right in [
            &["--sort", "last", "--reverse", "--limit", "5"][..],
            &["--protocol", "TCP", "--port", "443", "--remote", "2001:db8::/32", "--opened", "--untypical"],
        ] {
            assert!(parse(right).is_ok(), "{right:?}");
        }
        for wrong in [
            &["--opened", "--accepted"][..],
            &["--typical", "--untypical"],
            &["--remote", "10.0.0.1/8"],
            &["--protocol", "tpc"],
            &["--sort", "size"],
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), i32::from(Exit::Usage.code()), "{wrong:?}");
        }
    }

    #[test]
    fn a_quarantine_needs_a_reason() {
        assert!(Cli::try_parse_from(["agentsec", "quarantine", "crawler"]).is_err());
        assert!(Cli::try_parse_from(["agentsec", "quarantine", "crawler", "--reason", "smells"]).is_ok());
    }
}
