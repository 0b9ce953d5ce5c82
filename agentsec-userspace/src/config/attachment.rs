//! Where an agent meets the kernel: `interface`, `unit`, `cgroup`, and `address` with `link` and `datapath`.

use super::prefix::Prefix;
use super::section::{Section, text};
use super::selector::{self, Selector};
use super::source::{Node, Value};
use agentsec_common::agent::NAME_BYTES;

/// Longest interface name that the kernel accepts, in bytes.
pub const INTERFACE_BYTES: usize = 15;
/// Longest name of a directory, in bytes.
const COMPONENT_BYTES: usize = 255;
/// Levels below the root of the cgroup tree at which the kernel's programs look for an agent.
pub const CGROUP_DEPTH: usize = 16;

/// Which cgroups of the v2 tree an agent lives in. Paths are relative to the tree's root, without a leading `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupSelector {
    /// By path.
    Path(Selector),
    /// By the last component of the path, wherever it is: a systemd unit.
    Unit(Selector),
}

impl CgroupSelector {
    /// Whether it means the cgroup at `path`.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Path(selector) => selector.matches(path),
            Self::Unit(selector) => selector.matches(last_component(path)),
        }
    }

    /// What it selects by.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        match self {
            Self::Path(selector) | Self::Unit(selector) => selector,
        }
    }

    /// The path, when it is one and no pattern.
    #[must_use]
    pub fn exact_path(&self) -> Option<&str> {
        match self {
            Self::Path(selector) => selector.exact(),
            Self::Unit(_) => None,
        }
    }

    /// The unit, when it is one and no pattern.
    #[must_use]
    pub fn exact_unit(&self) -> Option<&str> {
        match self {
            Self::Unit(selector) => selector.exact(),
            Self::Path(_) => None,
        }
    }

    /// Key under which it is configured.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Path(_) => "cgroup",
            Self::Unit(_) => "unit",
        }
    }

    /// Whether it is a pattern that could adopt an agent named `id`.
    pub(super) fn could_name(&self, id: &str) -> bool {
        match self.selector() {
            Selector::Exact(_) => false,
            Selector::Pattern(pattern) => is_agent_id(id) && selector::wildcard(last_component(pattern), id),
        }
    }
}

/// Which programs see an address on a shared link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Datapath {
    /// XDP and TC where the link's driver can do both, else TC.
    #[default]
    Auto,
    /// TC only.
    Tc,
    /// XDP for what arrives, TC for what leaves.
    Xdp,
}

/// Addresses of an agent behind a link that it shares with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressAttachment {
    /// The interface.
    pub link: String,
    /// Its addresses there; no two overlap.
    pub prefixes: Vec<Prefix>,
    /// Which programs see them.
    pub datapath: Datapath,
}

/// Last component of a path; the path itself when it has one component.
#[must_use]
pub fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether `id` can be the name of an agent that a pattern adopts.
pub(super) fn is_agent_id(id: &str) -> bool {
    (1..=NAME_BYTES).contains(&id.len()) && !id.contains(|c: char| c == '/' || c.is_control())
}

/// Reads `interface`; `None` when it is absent or has problems.
pub(super) fn read_interface(section: &Section<'_>) -> Option<Selector> {
    section.parsed("interface", INTERFACES, |value| interface(text(value)?))
}

/// Reads `unit` or `cgroup`.
pub(super) fn read_cgroup(section: &Section<'_>) -> Option<CgroupSelector> {
    let path = section.parsed("cgroup", CGROUPS, |value| cgroup(text(value)?)).map(CgroupSelector::Path);
    let unit = section.parsed("unit", UNITS, |value| unit(text(value)?)).map(CgroupSelector::Unit);
    if path.is_some()
        && unit.is_some()
        && let Some(node) = section.node("unit")
    {
        let message = "is a second way to say which cgroup".into();
        section.report.problem(node.spot, &section.key("unit"), message, Some("cgroup or unit".into()));
    }
    path.or(unit)
}

/// Reads `address`, `link` and `datapath`, which belong together.
pub(super) fn read_address(section: &Section<'_>) -> Option<AddressAttachment> {
    let prefixes = read_prefixes(section);
    let link = section.parsed("link", LINKS, |value| link(text(value)?));
    let choices = [("auto", Datapath::Auto), ("tc", Datapath::Tc), ("xdp", Datapath::Xdp)];
    let datapath = section.choice("datapath", &choices).unwrap_or_default();
    let Some(address) = section.node("address") else {
        for key in ["link", "datapath"] {
            if let Some(node) = section.node(key) {
                let allowed = Some("only with address".to_owned());
                section.report.problem(node.spot, &section.key(key), "needs an address".into(), allowed);
            }
        }
        return None;
    };
    if section.node("link").is_none() {
        let allowed = Some(LINKS.to_owned());
        section.report.problem(address.spot, &section.key("link"), "is missing".into(), allowed);
    }
    Some(AddressAttachment { link: link?, prefixes: prefixes?, datapath })
}

/// `daemon.cgroup_root`.
pub(super) fn read_cgroup_root(section: &Section<'_>) -> Option<String> {
    const ROOTS: &str = "the path of one cgroup in the v2 tree, such as \"agents.slice\"";
    section.parsed("cgroup_root", ROOTS, |value| match cgroup(text(value)?)? {
        Selector::Exact(path) => Ok(path),
        Selector::Pattern(pattern) => Err(format!("{pattern:?} is a pattern")),
    })
}

const INTERFACES: &str = "an interface name of 1 to 15 bytes, or a pattern with * and ?";
const LINKS: &str = "the name of the interface that the addresses are behind";
const UNITS: &str = "the name of a systemd unit such as \"agent.service\", or a pattern with * and ?";
const CGROUPS: &str = "a path of 1 to 16 components in the cgroup v2 tree such as \"system.slice/agent.service\", \
                       or a pattern with * and ? in its last component";
const ADDRESSES: &str = "an IPv4 or IPv6 address or prefix such as \"10.1.2.0/24\", or a list of them";

fn interface(text: &str) -> Result<Selector, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text == "." || text == ".." || text.contains(bad) {
        return Err(format!("{text:?} is no interface name"));
    }
    // A star may stand for nothing; every other byte of a pattern stands for at least one of the name.
    let least = text.bytes().filter(|&byte| byte != b'*').count();
    if least > INTERFACE_BYTES {
        return Err(format!("{text:?} is longer than {INTERFACE_BYTES} bytes"));
    }
    Ok(Selector::of(text))
}

fn link(text: &str) -> Result<String, String> {
    match interface(text)? {
        Selector::Exact(name) => Ok(name),
        Selector::Pattern(pattern) => Err(format!("{pattern:?} is a pattern")),
    }
}

fn unit(text: &str) -> Result<Selector, String> {
    if text.contains('/') {
        return Err(format!("{text:?} is a path, which is what cgroup is for"));
    }
    component(text)?;
    Ok(Selector::of(text))
}

fn cgroup(text: &str) -> Result<Selector, String> {
    let path = text.strip_prefix('/').unwrap_or(text);
    if path.is_empty() {
        return Err(format!("{text:?} is the root, which holds every process"));
    }
    for name in path.split('/') {
        component(name).map_err(|message| format!("{text:?}: {message}"))?;
    }
    let depth = path.split('/').count();
    if depth > CGROUP_DEPTH {
        return Err(format!("{text:?} has {depth} components"));
    }
    // Agents are named after the last one: without a wildcard there, unrelated ones would be one agent.
    if selector::is_pattern(path) && !selector::is_pattern(last_component(path)) {
        return Err(format!("{text:?} would name all its agents {:?}", last_component(path)));
    }
    Ok(Selector::of(path))
}

/// Whether a directory can have that name.
fn component(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a name is empty".into());
    }
    if name == "." || name == ".." || name.contains(char::is_control) {
        return Err(format!("{name:?} is no name of a cgroup"));
    }
    if name.len() > COMPONENT_BYTES {
        return Err(format!("a name is longer than {COMPONENT_BYTES} bytes"));
    }
    Ok(())
}

/// One prefix or a list; `None` when it is absent or any of them has problems.
fn read_prefixes(section: &Section<'_>) -> Option<Vec<Prefix>> {
    let node = section.node("address")?;
    let one = |(key, node): (String, &Node)| {
        let prefix = text(&node.value).and_then(own_prefix);
        prefix
            .map_err(|message| section.report.problem(node.spot, &key, message, Some(ADDRESSES.into())))
            .ok()
    };
    let key = section.key("address");
    match &node.value {
        Value::Array(items) if items.is_empty() => {
            section.report.problem(node.spot, &key, "is empty".into(), Some(ADDRESSES.into()));
            None
        }
        Value::Array(items) => {
            let numbered = items.iter().enumerate().map(|(index, item)| (format!("{key}[{index}]"), item));
            let read: Vec<Option<Prefix>> = numbered.map(one).collect();
            read.into_iter().collect()
        }
        _ => one((key, node)).map(|prefix| vec![prefix]),
    }
}

fn own_prefix(text: &str) -> Result<Prefix, String> {
    let prefix: Prefix = text.parse()?;
    if prefix.is_whole_family() {
        return Err(format!("{text:?} is every address, which is what interface is for"));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_fits_the_kernel() {
        assert!(interface("veth-fifteen-ch").is_ok());
        assert!(interface("veth-sixteen-chs").is_err());
        assert_eq!(interface("veth*"), Ok(Selector::Pattern("veth*".into())));
        for bad in ["", "a b", "a/b", ".."] {
            assert!(interface(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cgroup_is_a_path_below_the_root() {
        let deep = |depth: usize| vec!["a"; depth].join("/");
        assert_eq!(cgroup("/a/b.service"), Ok(Selector::Exact("a/b.service".into())));
        assert_eq!(cgroup("a/b-*"), Ok(Selector::Pattern("a/b-*".into())));
        assert!(cgroup(&deep(CGROUP_DEPTH)).is_ok());
        let long = "x".repeat(COMPONENT_BYTES + 1);
        for bad in ["", "/", "//a", "a//b", "a/", "a/..", "./a", "a\0b", "a*/b", &long, &deep(17)] {
            assert!(cgroup(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_unit_is_compared_with_the_last_component() {
        let mailer = CgroupSelector::Unit(unit("agent-*.service").unwrap());
        assert!(mailer.matches("agent-a.service") && mailer.matches("x/y/agent-a.service"));
        assert!(!mailer.matches("agent-a.service/payload"));
        assert!(unit("a/b").is_err());
    }

    #[test]
    fn a_pattern_names_agents_after_the_last_component() {
        let pattern = CgroupSelector::Path(cgroup("system.slice/agent-*").unwrap());
        assert!(pattern.could_name("agent-1") && !pattern.could_name("system.slice"));
        assert!(!pattern.could_name(&format!("agent-{}", "x".repeat(NAME_BYTES))));
        assert!(!CgroupSelector::Unit(unit("agent-1").unwrap()).could_name("agent-1"));
    }

    #[test]
    fn an_address_keeps_its_family() {
        assert_eq!(own_prefix("::ffff:10.1.0.0/112").unwrap().to_string(), "10.1.0.0/16");
        assert!(
            own_prefix("0.0.0.0/0").is_err() && own_prefix("::/0").is_err() && own_prefix("any").is_err()
        );
        assert!(own_prefix("::ffff:0:0/96").is_err());
    }
}
