//! Makes a machine able to build and test, or says exactly what it lacks.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::facts::Facts;
use crate::need::{Need, Remedy, Scope, apt_install, missing};
use crate::step::Progress;
use crate::toolchain::BpfTools;
use crate::workspace;

/// Sets everything up and says so.
pub fn announce(progress: &Progress) -> Result<()> {
    let tools = ensure(progress, Scope::Test)?;
    progress.done(&format!("setup: complete; kernel programs are built with {}", tools.way.toolchain()));
    Ok(())
}

/// Reports what is missing and changes nothing.
pub fn report() -> Result<ExitCode> {
    let facts = Facts::probe();
    let needs = missing(&facts, Scope::Test);
    if needs.is_empty() {
        println!("complete; kernel programs are built with {}", facts.way().toolchain());
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", describe(&needs, &facts));
    Ok(ExitCode::FAILURE)
}

/// Brings what is missing for a scope. Begins only if all of it can be brought.
pub fn ensure(progress: &Progress, scope: Scope) -> Result<BpfTools> {
    let facts = Facts::probe();
    let needs = missing(&facts, scope);
    if needs.is_empty() {
        return tools(facts);
    }
    if needs.iter().any(|need| need.remedy.obstacle(&facts).is_some()) {
        bail!("setup: this machine lacks what cannot be installed from here\n{}", describe(&needs, &facts));
    }
    if let Err(error) = apply(progress, &needs) {
        let facts = Facts::probe();
        let needs = missing(&facts, scope);
        return Err(error.context(format!("setup: still missing\n{}", describe(&needs, &facts))));
    }
    let facts = Facts::probe();
    let needs = missing(&facts, scope);
    if !needs.is_empty() {
        bail!("setup: every command succeeded, yet this is still missing\n{}", describe(&needs, &facts));
    }
    tools(facts)
}

fn tools(facts: Facts) -> Result<BpfTools> {
    let way = facts.way();
    let linker = facts.linker.context("setup: bpf-linker was here a moment ago")?;
    Ok(BpfTools { way, linker })
}

/// What is missing, what it is for and what brings it; one paragraph each.
fn describe(needs: &[Need], facts: &Facts) -> String {
    let mut text = needs.iter().map(|need| paragraph(need, facts)).collect::<Vec<_>>().join("\n");
    if facts.bookworm && !facts.root {
        text.push_str("\nAs root, `cargo xtask setup` brings all of this from Debian's packages.\n");
    }
    text
}

fn paragraph(need: &Need, facts: &Facts) -> String {
    let Need { what, purpose, remedy } = need;
    let obstacle = remedy.obstacle(facts).map(|why| format!("  ({why})")).unwrap_or_default();
    format!("  missing  {what}\n  used for {purpose}\n  remedy   {remedy}{obstacle}\n")
}

fn apply(progress: &Progress, needs: &[Need]) -> Result<()> {
    install_packages(progress, needs)?;
    let mut remedies: Vec<&Remedy> = needs.iter().map(|need| &need.remedy).collect();
    remedies.sort();
    remedies.dedup();
    for remedy in remedies {
        let label = match remedy {
            Remedy::ByHand(_) | Remedy::Package(_) => continue,
            Remedy::Nightly => "setup: nightly toolchain",
            Remedy::NightlyClippy(_) => "setup: clippy for the nightly toolchain",
            Remedy::Link => "setup: link Debian's toolchain",
            Remedy::Linker { .. } => "setup: build bpf-linker",
            Remedy::Bpffs => "setup: mount the BPF file system",
            Remedy::ObjectStore => "setup: install the object store of the tests",
        };
        let (env, words) = remedy.command();
        run(progress, label, &env, &words)?;
    }
    Ok(())
}

fn install_packages(progress: &Progress, needs: &[Need]) -> Result<()> {
    let packages: Vec<&str> = needs
        .iter()
        .filter_map(|need| match need.remedy {
            Remedy::Package(name) => Some(name),
            _ => None,
        })
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let env = [("DEBIAN_FRONTEND".to_owned(), "noninteractive".to_owned())];
    let update = ["apt-get".to_owned(), "update".to_owned()];
    if let Err(error) = run(progress, "setup: apt-get update", &env, &update) {
        // One unreachable list of many is common and need not matter.
        progress.note(&format!("{error}; going on with the package lists that are here"));
    }
    let mut install = apt_install(&packages);
    install.extend(["-o".to_owned(), "DPkg::Lock::Timeout=600".to_owned()]);
    run(progress, &format!("setup: apt-get install {}", packages.join(" ")), &env, &install)
}

fn run(progress: &Progress, label: &str, env: &[(String, String)], words: &[String]) -> Result<()> {
    let (program, args) = words.split_first().context("setup: an empty command")?;
    let mut command = workspace::command(program);
    command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
    progress.run(label, &mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_is_missing_what_for_and_what_to_do() {
        let facts = Facts { rustup: true, ..Facts::default() };
        let need = Need { what: "ip".into(), purpose: "namespaces", remedy: Remedy::Package("iproute2") };
        let text = describe(&[need], &facts);
        for part in
            ["ip", "namespaces", "apt-get install --yes --no-install-recommends iproute2", "no apt-get"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
