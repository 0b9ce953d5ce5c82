//! Who is at the other end of a connection, and whether they may speak.
//!
//! An agent that runs as root in a container with the socket mounted passes the file's permissions. It does
//! not pass this: it lives in another network or user namespace, or in an agent's cgroup.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Group, geteuid};

/// The group whose members may operate.
pub const OPERATORS: &str = "agentsec";

/// A namespace, as `stat` of a file under `/proc/PID/ns` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    device: u64,
    inode: u64,
}

impl Namespace {
    fn read(pid: &str, kind: &str) -> io::Result<Self> {
        let found = fs::metadata(format!("/proc/{pid}/ns/{kind}"))?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }
}

/// What the kernel says about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// The process that connected; 0 when the daemon's PID namespace has no number for it.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group and supplementary groups.
    pub groups: Vec<u32>,
    /// Its network and user namespaces; `None` when they could not be read.
    pub namespaces: Option<(Namespace, Namespace)>,
    /// Its cgroup v2 path, if it could be read.
    pub cgroup: Option<String>,
}

/// Tells which agent's a process is, by its cgroup for example; `None` for nobody's.
pub type AgentOf = Arc<dyn Fn(&PeerFacts) -> Option<String> + Send + Sync>;

/// Judges peers.
#[derive(Clone)]
pub struct Guard {
    net: Namespace,
    user: Namespace,
    euid: u32,
    operators: Option<u32>,
    agent_of: Option<AgentOf>,
}

impl Guard {
    /// Admits root, this process's own user and the group [`OPERATORS`], in this process's namespaces.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self {
            net: Namespace::read("self", "net")?,
            user: Namespace::read("self", "user")?,
            euid: geteuid().as_raw(),
            operators: operators_gid(),
            agent_of: None,
        })
    }

    /// Also refuses processes that `agent_of` knows as an agent's.
    #[must_use]
    pub fn refusing_agents(mut self, agent_of: AgentOf) -> Self {
        self.agent_of = Some(agent_of);
        self
    }

    /// Whether the peer may speak; else why not.
    pub fn judge(&self, peer: &PeerFacts) -> Result<(), String> {
        let (net, user) = peer.namespaces.ok_or_else(|| {
            format!(
                "the namespaces of process {} cannot be read, so it cannot be told from an agent",
                peer.pid
            )
        })?;
        if net != self.net {
            return Err("the caller is in another network namespace than the daemon, as agents are".into());
        }
        if user != self.user {
            return Err("the caller is in another user namespace than the daemon, as agents are".into());
        }
        if let Some(agent) = self.agent_of.as_ref().and_then(|agent_of| agent_of(peer)) {
            return Err(format!("the caller belongs to the agent `{agent}`"));
        }
        let is_operator = self.operators.is_some_and(|gid| peer.groups.contains(&gid));
        if peer.uid != 0 && peer.uid != self.euid && !is_operator {
            return Err(format!("uid {} is neither root nor in the group `{OPERATORS}`", peer.uid));
        }
        Ok(())
    }
}

/// The operators' group, if it exists.
pub(super) fn operators_gid() -> Option<u32> {
    Group::from_name(OPERATORS).ok().flatten().map(|group| group.gid.as_raw())
}

impl PeerFacts {
    /// Asks the kernel about the peer of `socket`.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        // Absent before Linux 6.5; then a recycled process number goes unnoticed.
        let pidfd = getsockopt(socket, sockopt::PeerPidfd).ok();
        let pid = credentials.pid();
        let mut facts = Self {
            pid,
            uid: credentials.uid(),
            groups: vec![credentials.gid()],
            namespaces: None,
            cgroup: None,
        };
        if pid > 0 {
            facts.read_proc();
        }
        // A process number cannot be given to another process before the first is reaped, so if the handle
        // still has its number now, everything above was read from the process that connected.
        if pidfd.is_some_and(|pidfd| pid_of(&pidfd) != Some(pid)) {
            facts.namespaces = None;
        }
        Ok(facts)
    }

    fn read_proc(&mut self) {
        let pid = self.pid.to_string();
        self.namespaces =
            Namespace::read(&pid, "net").and_then(|net| Ok((net, Namespace::read(&pid, "user")?))).ok();
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            self.groups.extend(supplementary_groups(&status));
        }
        self.cgroup =
            fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().and_then(|text| unified_cgroup(&text));
    }

    /// For an event: who did it.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("uid {} (pid {})", self.uid, self.pid)
    }
}

/// The number of the process behind a pidfd; `None` once it is gone.
fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|&pid| pid > 0)
}

fn supplementary_groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    line.unwrap_or_default().split_ascii_whitespace().filter_map(|gid| gid.parse().ok()).collect()
}

fn unified_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: Namespace = Namespace { device: 4, inode: 1 };
    const USER: Namespace = Namespace { device: 4, inode: 2 };
    const ELSEWHERE: Namespace = Namespace { device: 4, inode: 9 };

    fn guard() -> Guard {
        Guard { net: NET, user: USER, euid: 0, operators: Some(990), agent_of: None }
    }

    fn peer(uid: u32, groups: &[u32]) -> PeerFacts {
        PeerFacts {
            pid: 7,
            uid,
            groups: groups.into(),
            namespaces: Some((NET, USER)),
            cgroup: Some("/a".into()),
        }
    }

    #[test]
    fn root_and_the_operators_may_speak_and_nobody_else() {
        assert_eq!(guard().judge(&peer(0, &[0])), Ok(()));
        assert_eq!(guard().judge(&peer(1000, &[1000, 990])), Ok(()));
        assert!(guard().judge(&peer(1000, &[1000, 0])).unwrap_err().contains("uid 1000"));
        let without_group = Guard { operators: None, ..guard() };
        assert!(without_group.judge(&peer(1000, &[990])).is_err());
    }

    #[test]
    fn even_root_is_refused_from_another_namespace() {
        let net = PeerFacts { namespaces: Some((ELSEWHERE, USER)), ..peer(0, &[0]) };
        assert!(guard().judge(&net).unwrap_err().contains("network namespace"));
        let user = PeerFacts { namespaces: Some((NET, ELSEWHERE)), ..peer(0, &[0]) };
        assert!(guard().judge(&user).unwrap_err().contains("user namespace"));
        let unknown = PeerFacts { namespaces: None, ..peer(0, &[0]) };
        assert!(guard().judge(&unknown).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn even_root_is_refused_from_an_agents_cgroup() {
        let is_agent: AgentOf =
            Arc::new(|peer| (peer.cgroup.as_deref() == Some("/a")).then(|| "crawler".into()));
        let guard = guard().refusing_agents(is_agent);
        assert!(guard.judge(&peer(0, &[0])).unwrap_err().contains("crawler"));
        assert_eq!(guard.judge(&PeerFacts { cgroup: Some("/b".into()), ..peer(0, &[0]) }), Ok(()));
    }

    #[test]
    fn proc_files_are_read_as_they_are_written() {
        assert_eq!(supplementary_groups("Name:\tx\nGroups:\t4 24 990 \nVmPeak:\t1"), [4, 24, 990]);
        assert!(supplementary_groups("Groups:\t\n").is_empty());
        assert_eq!(
            unified_cgroup("12:cpu:/x\n0::/system.slice/a.service\n").unwrap(),
            "/system.slice/a.service"
        );
        assert_eq!(unified_cgroup("12:cpu:/x\n"), None);
    }

    #[test]
    fn this_process_may_speak_to_itself() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let facts = PeerFacts::of(&ours).unwrap();
        assert_eq!(facts.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(Guard::of_this_process().unwrap().judge(&facts), Ok(()));
    }
}
