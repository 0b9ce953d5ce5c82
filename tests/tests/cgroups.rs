//! The cgroup fixture itself, and the traffic of processes in cgroups.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use agentsec::kernel::cgroups::{Scope, Tree};
use agentsec_tests::cgroup::Cgroup;
use agentsec_tests::lab::Lab;
use agentsec_tests::link::ip;
use agentsec_tests::netns::Namespace;
use agentsec_tests::traffic::capture::{Capture, Keep};
use agentsec_tests::wait;
use anyhow::{Context, Result};

const LONG: Duration = Duration::from_secs(60);

/// A namespace whose loopback interface is up.
fn alone() -> Result<Namespace> {
    let namespace = Namespace::new("alone")?;
    ip(&namespace, "link set lo up")?;
    Ok(namespace)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_command_is_in_its_cgroup_and_namespace_before_it_does_anything() -> Result<()> {
    let (namespace, cgroup) = (alone()?, Cgroup::new("born")?);
    let inner = cgroup.child("inner")?;
    let member = inner
        .spawn(Some(&namespace), shell("cat /proc/self/cgroup; readlink /proc/self/ns/net; echo end"))?;
    let mut said = Vec::new();
    while let Some(line) = member.line().ok().filter(|line| line != "end") {
        said.push(line);
    }
    assert!(said.contains(&format!("0::/{}", inner.path())), "{said:?}");
    assert!(said.contains(&format!("net:[{}]", namespace.inode()?)), "{said:?}");
    let tree = Tree::find()?;
    let listed = tree.list(cgroup.path())?.cgroups;
    assert_eq!(
        listed.iter().map(|found| (found.id, found.path.as_str())).collect::<Vec<_>>(),
        [(inner.id(), inner.path())]
    );
    Ok(())
}

#[test]
fn a_dropped_cgroup_takes_its_processes_and_children_along() -> Result<()> {
    let cgroup = Cgroup::new("dropped")?;
    let deep = cgroup.child("a")?.path().to_owned();
    assert!(!Tree::find()?.directory(&deep)?.exists(), "the child's own fixture is gone");
    let inner = cgroup.child("b")?;
    let mut parent = inner.spawn(None, shell("sleep 1000 & echo $!; wait"))?;
    let grandchild: u32 = parent.line()?.parse()?;
    assert!(cgroup.holds(parent.id())? && cgroup.holds(grandchild)?);
    let directory = cgroup.directory();
    drop(cgroup);
    assert!(!directory.exists());
    parent.wait()?;
    wait::until("the grandchild to be reaped", LONG, || {
        let status = std::fs::read_to_string(format!("/proc/{grandchild}/status")).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    })?;
    inner.remove()
}

#[test]
fn a_running_process_can_be_moved() -> Result<()> {
    let (from, to) = (Cgroup::new("from")?, Cgroup::new("to")?);
    let member = from.spawn(None, Command::new("cat"))?;
    assert!(from.holds(member.id())?);
    to.adopt(member.id())?;
    let members = Tree::find()?.members(to.path(), Scope::Itself)?;
    assert_eq!(
        (from.holds(member.id())?, members.into_iter().collect::<Vec<_>>()),
        (false, vec![member.id()])
    );
    Ok(())
}

#[test]
fn tcp_between_cgroups_says_what_was_sent_and_received() -> Result<()> {
    let (namespace, server, client) = (alone()?, Cgroup::new("server")?, Cgroup::new("client")?);
    let server =
        server.traffic(Some(&namespace), &["tcp-server", "--listen", "127.0.0.1:0", "--connections", "2"])?;
    let to = server.ready()?.to_string();
    for _ in 0..2 {
        let sent =
            client.traffic(Some(&namespace), &["tcp-client", "--to", &to, "--bytes", "300000"])?.report()?;
        assert_eq!(
            (sent["sent_bytes"].as_u64(), sent["complete"].as_bool()),
            (Some(300_000), Some(true)),
            "{sent}"
        );
    }
    let received = server.report()?;
    assert_eq!(
        (received["connections"].as_u64(), received["received_bytes"].as_u64()),
        (Some(2), Some(600_000))
    );
    let refused = client.traffic(Some(&namespace), &["tcp-client", "--to", &to])?.report()?;
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("refused")), "{refused}");
    Ok(())
}

#[test]
fn udp_is_answered_and_a_server_ends_when_asked() -> Result<()> {
    let (namespace, cgroup) = (alone()?, Cgroup::new("udp")?);
    let server = cgroup
        .traffic(Some(&namespace), &["udp-server", "--listen", "127.0.0.1:0", "--datagrams", "1000"])?;
    let to = server.ready()?.to_string();
    let client = ["udp-client", "--to", &to, "--datagrams", "7", "--bytes", "50", "--answer-ms", "10000"];
    let sent = cgroup.traffic(Some(&namespace), &client)?.report()?;
    let counts = ["sent", "sent_bytes", "received", "received_bytes", "errors"].map(|key| sent[key].as_u64());
    assert_eq!(counts, [Some(7), Some(350), Some(7), Some(350), Some(0)], "{sent}");
    let served = server.end()?;
    assert_eq!((served["received"].as_u64(), served["sent"].as_u64()), (Some(7), Some(7)), "{served}");
    Ok(())
}

#[test]
fn a_held_socket_sends_when_told_and_outlives_a_move() -> Result<()> {
    let (namespace, before, after) = (alone()?, Cgroup::new("before")?, Cgroup::new("after")?);
    for (protocol, server) in [("udp", "udp-server"), ("tcp", "tcp-server")] {
        let server = before.traffic(Some(&namespace), &[server, "--listen", "127.0.0.1:0"])?;
        let to: SocketAddr = server.ready()?;
        let mut held = before
            .traffic(Some(&namespace), &["hold", protocol, "--to", &to.to_string(), "--bytes", "10"])?;
        assert_eq!(held.ready()?.ip(), Ipv4Addr::LOCALHOST);
        after.adopt(held.id())?;
        let answer = held.ask("now")?;
        assert_eq!((answer["sent_bytes"].as_u64(), answer["error"].is_null()), (Some(10), true), "{answer}");
        drop(held);
        assert_eq!(server.report()?["received_bytes"].as_u64(), Some(10), "{protocol}");
    }
    Ok(())
}

#[test]
fn frames_of_a_packet_socket_cross_the_wire() -> Result<()> {
    let (lab, cgroup) = (Lab::routed(1)?, Cgroup::new("frames")?);
    let agent = lab.agent(0);
    let capture = Capture::start(lab.host(), &agent.host_interface, LONG, Keep::default())?;
    let arguments = ["packet-socket", "--interface", &agent.interface, "--frames", "25", "--bytes", "99"];
    let sent = cgroup.traffic(Some(&agent.namespace), &arguments)?.report()?;
    assert_eq!((sent["sent"].as_u64(), sent["sent_bytes"].as_u64()), (Some(25), Some(25 * 99)), "{sent}");
    capture.wait_for_arriving(25, LONG)?;
    let arriving = capture.stop()?.arriving;
    assert_eq!((arriving.frames, arriving.bytes), (25, 25 * 99));
    Ok(())
}

#[test]
fn traffic_ends_by_itself() -> Result<()> {
    let (namespace, cgroup) = (alone()?, Cgroup::new("bounded")?);
    let arguments = ["tcp-server", "--listen", "127.0.0.1:0", "--longest", "1"];
    let report = cgroup.traffic(Some(&namespace), &arguments)?.report()?;
    assert_eq!(report["connections"].as_u64(), Some(0));
    let server = cgroup.traffic(Some(&namespace), &["udp-server", "--listen", "127.0.0.1:0"])?;
    let to = server.ready()?.to_string();
    let mut held = cgroup.traffic(Some(&namespace), &["hold", "udp", "--to", &to, "--longest", "1"])?;
    held.ready()?;
    let status = held.wait().context("a held socket that nobody uses")?;
    assert!(!status.success(), "the alarm ends it: {status}");
    Ok(())
}
