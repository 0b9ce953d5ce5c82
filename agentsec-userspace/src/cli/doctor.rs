//! `doctor`: what this machine offers, and what stands in the way.

mod recovery;

use std::path::PathBuf;

use super::exit::Exit;
use super::run::CONFIG;
use super::style::{Style, Tone, harmless};
use super::{Context, Outcome};
use crate::kernel::probe::{self, AttachBy, Check, CheckStatus, InterfaceHooks, Report};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The daemon's configuration: it tells whose snapshots are where
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let mut report = probe::run(&context.global.pin_path).await;
        report.checks.extend(recovery::checks(&self.config, &context.global.state_dir));
        if context.output.json {
            context.output.object(&report)?;
        } else {
            context.output.text(&render(&report, context.output.style))?;
        }
        Ok(if report.worst() == CheckStatus::Fail { Exit::Unhealthy } else { Exit::Ok })
    }
}

fn render(report: &Report, style: Style) -> String {
    let mut text: String = report.checks.iter().map(|check| check_lines(check, style)).collect();
    if !report.interfaces.is_empty() {
        text.push_str("\nprograms on hooks\n");
        text.extend(report.interfaces.iter().map(interface_lines));
    }
    text.push_str("\nnot visible from here\n");
    text.extend(report.blind_spots.iter().map(|blind_spot| format!("  {blind_spot}\n")));
    let tone = if report.plan.attach_by == AttachBy::Nothing { Tone::Bad } else { Tone::Strong };
    text.push_str(&format!("\n{} {}\n", style.paint(tone, "will use"), report.plan.summary));
    text
}

/// What was found; and for what is not as it should be, why it matters and what to do.
fn check_lines(check: &Check, style: Style) -> String {
    let (word, tone) = match check.status {
        CheckStatus::Ok => ("ok  ", Tone::Good),
        CheckStatus::Warn => ("warn", Tone::Warning),
        CheckStatus::Fail => ("FAIL", Tone::Bad),
    };
    let mut lines = format!("{}  {:16}  {}\n", style.paint(tone, word), check.name, harmless(&check.found));
    if check.status != CheckStatus::Ok {
        let mut detail = |label: &str, text: &str| {
            lines.push_str(&format!("{:24}{} {text}\n", "", style.paint(Tone::Dim, label)));
        };
        detail("matters for:", check.why);
        if let Some(remedy) = &check.remedy {
            detail("remedy:", remedy);
        }
    }
    lines
}

fn interface_lines(hooks: &InterfaceHooks) -> String {
    let netkit = if hooks.netkit { " (netkit)" } else { "" };
    let mut lines = format!("  {}{netkit}\n", harmless(&hooks.interface));
    for (hook, chain) in hooks.chains() {
        if chain.is_empty() {
            continue;
        }
        let programs: Vec<String> = chain
            .iter()
            .map(|program| {
                let id = program.id.map(|id| format!(" (id {id})")).unwrap_or_default();
                let ours = if program.ours { ", ours" } else { "" };
                format!("{}{id}{ours}", harmless(&program.name))
            })
            .collect();
        lines.push_str(&format!("    {hook:14}  {}\n", programs.join(" -> ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::probe::{HookedProgram, Plan};

    #[test]
    fn a_failed_check_says_why_it_matters_and_what_to_do() {
        let report = Report {
            checks: vec![
                Check {
                    name: "JIT",
                    status: CheckStatus::Ok,
                    found: "on".into(),
                    why: "speed",
                    remedy: None,
                },
                Check {
                    name: "BPF file system",
                    status: CheckStatus::Fail,
                    found: "none".into(),
                    why: "pins",
                    remedy: Some("mount -t bpf bpf /sys/fs/bpf".into()),
                },
            ],
            interfaces: vec![InterfaceHooks {
                interface: "veth0".into(),
                tcx_ingress: vec![
                    HookedProgram { id: Some(1), name: "agentsec_out".into(), ours: true },
                    HookedProgram { id: Some(2), name: "other".into(), ours: false },
                ],
                ..InterfaceHooks::default()
            }],
            plan: Plan { attach_by: AttachBy::Tcx, summary: "TCX".into() },
            blind_spots: vec!["netkit"],
        };
        let expected = "\
ok    JIT               on
FAIL  BPF file system   none
                        matters for: pins
                        remedy: mount -t bpf bpf /sys/fs/bpf

programs on hooks
  veth0
    TCX ingress     agentsec_out (id 1), ours -> other (id 2)

not visible from here
  netkit

will use TCX
";
        assert_eq!(render(&report, Style::default()), expected);
    }
}
