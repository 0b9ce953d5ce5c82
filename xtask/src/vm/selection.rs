//! Which tests run in the guests, and why others do not.
//!
//! A guest runs user code twenty to fifty times slower than the host, on one CPU: what runs without a filter is chosen so
//! that all kernels together take less than ten minutes.

use super::kernel::Kernel;

/// What the guests do with one test program.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The test program: a file of `tests/tests`.
    pub program: &'static str,
    /// What is done with it.
    pub plan: Plan,
    /// Tests that are left out, and why.
    pub without: &'static [Without],
    /// Where it runs without a filter, if not everywhere, and why.
    pub only: Option<(Kernel, &'static str)>,
}

/// What is done with a test program. A filter that a user gives replaces the choice of [`Plan::Some`] and
/// [`Plan::OnRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All of it runs.
    Run,
    /// All of it runs, with the tests that other machines ignore: its devices exist only in the guests.
    RunIgnored,
    /// These tests run; the others only with a filter.
    Some(&'static [&'static str]),
    /// It runs only with a filter, and why.
    OnRequest(&'static str),
    /// It does not run, and why.
    Never(&'static str),
}

/// A test that does not run.
#[derive(Clone, Copy, Debug)]
pub struct Without {
    /// Its name.
    pub test: &'static str,
    /// On this kernel only.
    pub on: Option<Kernel>,
    /// Why.
    pub why: &'static str,
}

const fn run(program: &'static str) -> Row {
    Row { program, plan: Plan::Run, without: &[], only: None }
}

const fn on_request(program: &'static str) -> Row {
    Row { program, plan: Plan::OnRequest(SLOW), without: &[], only: None }
}

/// A test that attaches programs of others by TCX, or looks for pinned links.
const fn without_tcx(test: &'static str) -> Without {
    let why = "before 6.6 there is no TCX; daemon_clsact tests the same of filters";
    Without { test, on: Some(Kernel::V6_1), why }
}

/// Why tests run only with a filter.
pub const SLOW: &str = "only with a filter: slow here, and they ask nothing of the kernel that others do not";

/// Why snapshots are not tested in guests.
const NO_RESTIC: &str = "it needs restic, and asks nothing of the kernel that differs between these";

/// Every test program.
const ROWS: [Row; 41] = [
    Row {
        program: "daemon_interfaces",
        plan: Plan::Some(&[
            "a_contained_agent_stays_so_when_its_interface_is_made_anew",
            "an_interface_in_another_namespace_is_still_held",
        ]),
        without: &[Without {
            test: "an_interface_in_another_namespace_is_still_held",
            on: Some(Kernel::V6_1),
            why: "before 6.6 an interface loses its filters when it moves to another namespace",
        }],
        only: None,
    },
    Row {
        program: "daemon_pins",
        plan: Plan::Some(&[
            "unload_removes_what_is_ours_and_nothing_else",
            "everybody_can_be_released_without_a_daemon",
            "programs_of_others_see_what_passes_wherever_they_stand",
        ]),
        without: &[
            without_tcx("unload_removes_what_is_ours_and_nothing_else"),
            without_tcx("programs_of_others_see_what_passes_wherever_they_stand"),
        ],
        only: None,
    },
    Row {
        program: "daemon_takeover",
        plan: Plan::Some(&[
            "no_packet_of_a_closed_agent_is_lost_or_uncounted_when_daemons_change",
            "the_kernel_trips_while_no_daemon_runs_and_the_next_one_records_it",
        ]),
        without: &[without_tcx("an_attachment_of_which_only_one_half_was_made_is_completed")],
        only: None,
    },
    Row {
        program: "daemon_clsact",
        plan: Plan::Run,
        without: &[],
        only: Some((Kernel::V6_1, "only with a filter: filters are for kernels without TCX")),
    },
    run("daemon_traffic"),
    run("daemon_trip"),
    run("kernel_counts"),
    run("kernel_endpoints"),
    run("kernel_limits"),
    run("kernel_notices"),
    run("kernel_signals"),
    Row {
        program: "kernel_doors",
        plan: Plan::Run,
        without: &[Without {
            test: "in_a_cgroup_every_packet_meets_the_verdict_of_the_table_and_counts_without_its_link_header",
            on: None,
            why: "these kernels' BPF_PROG_TEST_RUN shows cgroup programs no byte of a packet (their cgroups do)",
        }],
        only: None,
    },
    run("kernel_probe"),
    run("kernel_verdicts"),
    Row {
        program: "daemon_cgroups",
        plan: Plan::Some(&[
            "a_service_in_a_cgroup_has_whom_it_serves_and_whom_it_asks_as_endpoints",
            "a_process_over_its_limit_is_told_that_it_may_not_send",
            "a_packet_socket_is_denied_or_said_to_be_a_gap",
        ]),
        without: &[],
        only: None,
    },
    Row { program: "vm_devices", plan: Plan::RunIgnored, without: &[], only: None },
    Row { program: "vm_networks", plan: Plan::RunIgnored, without: &[], only: None },
    on_request("daemon_addresses"),
    Row {
        program: "daemon_cgroup_places",
        plan: Plan::Some(&["the_next_daemon_takes_cgroups_over_without_a_gap"]),
        without: &[],
        only: None,
    },
    on_request("daemon_coexistence"),
    on_request("daemon_evasions"),
    on_request("daemon_probe"),
    on_request("daemon_reload"),
    Row {
        program: "daemon_xdp",
        plan: Plan::Some(&[
            "an_open_agents_frames_are_dropped_by_xdp_before_anything_else_sees_them",
            "xdp_takes_and_drops_jumbo_frames",
        ]),
        without: &[without_tcx("an_open_agents_frames_are_dropped_by_xdp_before_anything_else_sees_them")],
        only: None,
    },
    on_request("kernel_evasions"),
    on_request("cgroups"),
    on_request("daemon_breaker"),
    on_request("daemon_cli"),
    on_request("daemon_containment"),
    on_request("daemon_faults"),
    on_request("daemon_networks"),
    on_request("fixtures"),
    on_request("kernel_score"),
    on_request("surroundings"),
    Row { program: "documents", plan: Plan::Never("it asks nothing of a kernel"), without: &[], only: None },
    Row {
        program: "daemon_bundle",
        plan: Plan::Never(
            "it needs age and restic, and asks nothing of the kernel that differs between these",
        ),
        without: &[],
        only: None,
    },
    Row { program: "daemon_recovery", plan: Plan::Never(NO_RESTIC), without: &[], only: None },
    Row { program: "daemon_recovery_clocks", plan: Plan::Never(NO_RESTIC), without: &[], only: None },
    Row { program: "daemon_recovery_places", plan: Plan::Never(NO_RESTIC), without: &[], only: None },
    Row { program: "snapshots", plan: Plan::Never(NO_RESTIC), without: &[], only: None },
    Row {
        program: "kernel_races",
        plan: Plan::Never("it needs CPUs that race, and the guest has one"),
        without: &[],
        only: None,
    },
];

/// What is done with this program on this kernel: its plan, and the tests left out of it.
pub fn of(program: &str, kernel: Kernel) -> (Plan, Vec<&'static Without>) {
    let Some(row) = ROWS.iter().find(|row| row.program == program) else {
        return (
            Plan::OnRequest("only with a filter: the table in xtask/src/vm/selection.rs does not name it"),
            Vec::new(),
        );
    };
    let plan = match row.only {
        Some((only, why)) if only != kernel => Plan::OnRequest(why),
        _ => row.plan,
    };
    (plan, row.without.iter().filter(|without| without.on.is_none_or(|on| on == kernel)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_the_table_names_exists() {
        let directory = crate::workspace::root().join("tests/tests");
        for row in &ROWS {
            let path = directory.join(format!("{}.rs", row.program));
            let source = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}", path.display()));
            for without in row.without {
                assert!(
                    source.contains(&format!("fn {}(", without.test)),
                    "{}: {}",
                    row.program,
                    without.test
                );
            }
        }
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.program).collect();
        assert_eq!(names.len(), ROWS.len(), "a program is named twice");
    }
}
