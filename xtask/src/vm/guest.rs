//! What the guest does: its init script, and the words by which it reports.

use super::kernel::Kernel;
use super::selection::{self, Plan};

/// Begins every line that is a report and not a test's own output.
pub const MARK: &str = "@@agentsec";

/// Modules in the order of their dependencies.
pub const MODULES: [&str; 12] = [
    "llc",
    "stp",
    "garp",
    "mrp",
    "veth",
    "sch_ingress",
    "cls_bpf",
    "8021q",
    "ipvlan",
    "macvlan",
    "dummy",
    "bridge",
];

/// How many times longer than on the host tests wait for something in vain.
const PATIENCE: u32 = 5;

/// What ends a test program that hangs, in seconds.
const LONGEST_PROGRAM: u32 = 900;

/// One run of a test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub program: String,
    /// Whether ignored tests run as well.
    pub ignored: bool,
    /// Tests that it leaves out.
    pub skip: Vec<&'static str>,
    /// What the names of the tests that run contain; all, if nothing is said.
    pub only: Vec<String>,
}

/// What will run of `programs`, and what will not, with the reason.
pub fn plan(
    kernel: Kernel,
    programs: &[&str],
    filter: Option<&str>,
) -> (Vec<Call>, Vec<(String, &'static str)>) {
    let (mut calls, mut left_out) = (Vec::new(), Vec::new());
    for &program in programs {
        let (plan, without) = selection::of(program, kernel);
        let only = match (plan, filter) {
            (Plan::Never(why), _) | (Plan::OnRequest(why), None) => {
                left_out.push((program.to_owned(), why));
                continue;
            }
            (_, Some(filter)) => vec![filter.to_owned()],
            (Plan::Some(tests), None) => {
                left_out.push((format!("{program}: the other tests"), selection::SLOW));
                tests.iter().map(|&test| test.to_owned()).collect()
            }
            (Plan::Run | Plan::RunIgnored, None) => Vec::new(),
        };
        left_out.extend(without.iter().map(|without| (format!("{program}: {}", without.test), without.why)));
        let skip = without.iter().map(|without| without.test).collect();
        calls.push(Call { program: program.to_owned(), ignored: plan == Plan::RunIgnored, skip, only });
    }
    (calls, left_out)
}

/// The guest's first process. Tests report on the second serial line, everything else goes to the first.
pub fn init(calls: &[Call]) -> String {
    let modules = MODULES.join(" ");
    let mut script = format!(
        r#"#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t securityfs security /sys/kernel/security
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in {modules}; do insmod /modules/$module.ko || echo "cannot load $module"; done
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3>/dev/ttyS1
seconds() {{ cut -d ' ' -f 1 /proc/uptime; }}
say() {{ echo "{MARK} $*" >&3; }}
call() {{
    program=$1
    shift
    say begin $program $(seconds)
    timeout {LONGEST_PROGRAM} /tests/$program --test-threads=1 "$@" >&3 2>&1
    code=$?
    echo >&3
    say end $program $code $(seconds)
}}
export AGENTSEC_BIN=/usr/bin/agentsec AGENTSEC_LAB=/usr/bin/agentsec-lab AGENTSEC_PATIENCE={PATIENCE} RUST_BACKTRACE=0
say kernel $(uname -r)
say lsm $(cat /sys/kernel/security/lsm)
"#
    );
    for call in calls {
        script += &format!("call {}", call.program);
        if call.ignored {
            script += " --include-ignored";
        }
        for test in &call.skip {
            script += &format!(" --skip {test}");
        }
        if !call.only.is_empty() {
            script += " --";
        }
        for name in &call.only {
            script += &format!(" {}", quoted(name));
        }
        script.push('\n');
    }
    script + "say done\nsync\npoweroff -f\n"
}

/// A word that the shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_what_runs_and_what_does_not() {
        let only = vec!["it's".to_owned()];
        let call = Call { program: "p".into(), ignored: true, skip: vec!["a", "b"], only };
        let script = init(std::slice::from_ref(&call));
        assert!(script.contains("\ncall p --include-ignored --skip a --skip b -- 'it'\\''s'\n"), "{script}");
        let plain = Call { ignored: false, skip: vec![], only: vec![], ..call };
        assert!(init(&[plain]).contains("\ncall p\n"));
    }

    #[test]
    fn a_filter_replaces_the_choice_and_what_does_not_run_is_said() {
        let programs = ["kernel_verdicts", "kernel_races", "daemon_pins", "daemon_cli", "no_such_program"];
        let names = |calls: &[Call]| calls.iter().map(|call| call.program.clone()).collect::<Vec<_>>();
        let (calls, left_out) = plan(Kernel::V6_12, &programs, None);
        assert_eq!(names(&calls), ["kernel_verdicts", "daemon_pins"]);
        assert!(calls[0].only.is_empty() && !calls[1].only.is_empty());
        let left_out: Vec<_> = left_out.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(
            left_out,
            ["kernel_races", "daemon_pins: the other tests", "daemon_cli", "no_such_program"]
        );
        let (calls, left_out) = plan(Kernel::V6_12, &programs, Some("some"));
        assert_eq!(names(&calls), ["kernel_verdicts", "daemon_pins", "daemon_cli", "no_such_program"]);
        assert!(calls.iter().all(|call| call.only == ["some"]));
        assert_eq!(left_out.len(), 1);
    }
}
