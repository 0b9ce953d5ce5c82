//! Who else sits on the hooks of this network namespace's interfaces.

use std::collections::HashMap;

use agentsec_common::maps::{
    PROGRAM_INBOUND, PROGRAM_LINK_INBOUND, PROGRAM_LINK_OUTBOUND, PROGRAM_LINK_XDP, PROGRAM_OUTBOUND,
};
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramInfo, SchedClassifier, loaded_programs};
use futures::{StreamExt, TryStreamExt};
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp};
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use serde::Serialize;

use super::{Check, CheckStatus};

/// A program on a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookedProgram {
    /// Its number; `null` for a filter that is no BPF program.
    pub id: Option<u32>,
    /// Its name, or the filter's kind.
    pub name: String,
    /// Whether it is AgentSec's.
    pub ours: bool,
}

impl HookedProgram {
    fn new(id: Option<u32>, name: impl Into<String>) -> Self {
        let name = name.into();
        match OURS.into_iter().find(|ours| known_by(ours) == known_by(&name)) {
            Some(ours) => Self { id, name: ours.to_owned(), ours: true },
            None => Self { id, name, ours: false },
        }
    }
}

/// Our programs on interfaces, agents' own and shared ones.
const OURS: [&str; 5] =
    [PROGRAM_OUTBOUND, PROGRAM_INBOUND, PROGRAM_LINK_OUTBOUND, PROGRAM_LINK_INBOUND, PROGRAM_LINK_XDP];

/// The part of a program's name that the kernel keeps (`BPF_OBJ_NAME_LEN` with its zero is 16).
fn known_by(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}

/// The programs on one interface, each list in the order in which packets meet them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceHooks {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether it is a netkit device, whose own programs run before any of these.
    pub netkit: bool,
    /// XDP, before everything else that comes in.
    pub xdp: Vec<HookedProgram>,
    /// TCX ingress.
    pub tcx_ingress: Vec<HookedProgram>,
    /// TCX egress.
    pub tcx_egress: Vec<HookedProgram>,
    /// clsact ingress filters, after TCX.
    pub clsact_ingress: Vec<HookedProgram>,
    /// clsact egress filters, after TCX.
    pub clsact_egress: Vec<HookedProgram>,
}

impl InterfaceHooks {
    fn is_empty(&self) -> bool {
        !self.netkit && self.chains().iter().all(|(_, chain)| chain.is_empty())
    }

    /// Every list with its hook's name.
    #[must_use]
    pub const fn chains(&self) -> [(&'static str, &Vec<HookedProgram>); 5] {
        [
            ("XDP", &self.xdp),
            ("TCX ingress", &self.tcx_ingress),
            ("TCX egress", &self.tcx_egress),
            ("clsact ingress", &self.clsact_ingress),
            ("clsact egress", &self.clsact_egress),
        ]
    }

    /// Programs that decide before ours do, where ours are attached.
    #[must_use]
    pub fn ahead_of_ours(&self) -> Vec<String> {
        let path_in: Vec<&HookedProgram> =
            self.xdp.iter().chain(&self.tcx_ingress).chain(&self.clsact_ingress).collect();
        let path_out: Vec<&HookedProgram> = self.tcx_egress.iter().chain(&self.clsact_egress).collect();
        let mut ahead = Vec::new();
        for path in [path_in, path_out] {
            let ours = path.iter().position(|program| program.ours).unwrap_or_default();
            ahead.extend(path[..ours].iter().map(|program| describe(program)));
        }
        ahead
    }
}

fn describe(program: &HookedProgram) -> String {
    program.id.map_or_else(|| program.name.clone(), |id| format!("{} (id {id})", program.name))
}

const ABOUT: (&str, &str) =
    ("other programs", "whoever sees a packet before us can take it past us, and it would not be counted");

/// The interfaces with programs, and what to think of that.
pub(super) async fn probe(tcx: bool) -> (Vec<InterfaceHooks>, Check) {
    match look(tcx).await {
        Ok(interfaces) => {
            let check = judge(&interfaces);
            (interfaces, check)
        }
        Err(error) => {
            let found = format!("the interfaces cannot be listed: {error}");
            (Vec::new(), Check::bad(CheckStatus::Warn, ABOUT, found, "run as root, on the host"))
        }
    }
}

fn judge(interfaces: &[InterfaceHooks]) -> Check {
    let ahead: Vec<String> = interfaces
        .iter()
        .flat_map(|hooks| {
            hooks.ahead_of_ours().into_iter().map(|name| format!("{name} on {}", hooks.interface))
        })
        .collect();
    if !ahead.is_empty() {
        let found = format!("ahead of ours: {}", ahead.join(", "));
        return Check::bad(
            CheckStatus::Warn,
            ABOUT,
            found,
            "detach them; or `agentsec unload` and start the daemon again, which attaches first on TCX",
        );
    }
    let netkit: Vec<&str> =
        interfaces.iter().filter(|hooks| hooks.netkit).map(|hooks| hooks.interface.as_str()).collect();
    if !netkit.is_empty() {
        let found = format!("netkit devices: {}", netkit.join(", "));
        return Check::bad(CheckStatus::Warn, ABOUT, found, "use veth for agents that are to be contained");
    }
    let others = interfaces.iter().flat_map(InterfaceHooks::chains);
    match others.flat_map(|(_, chain)| chain).filter(|program| !program.ours).count() {
        0 => Check::ok(ABOUT.0, ABOUT.1, "none on the hooks of this network namespace"),
        some => Check::ok(ABOUT.0, ABOUT.1, format!("{some}, none of them ahead of ours")),
    }
}

async fn look(tcx: bool) -> Result<Vec<InterfaceHooks>, String> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let names = program_names();
    let links: Result<Vec<LinkMessage>, _> = handle.link().get().execute().try_collect().await;
    let mut interfaces = Vec::new();
    for link in links.map_err(|error| error.to_string())? {
        let mut hooks = of_link(&link, &names);
        if tcx {
            hooks.tcx_ingress = tcx_programs(&hooks.interface, TcAttachType::Ingress);
            hooks.tcx_egress = tcx_programs(&hooks.interface, TcAttachType::Egress);
        }
        hooks.clsact_ingress = filters(&handle, hooks.ifindex, Way::Ingress, &names).await;
        hooks.clsact_egress = filters(&handle, hooks.ifindex, Way::Egress, &names).await;
        if !hooks.is_empty() {
            interfaces.push(hooks);
        }
    }
    connection.abort();
    Ok(interfaces)
}

/// Names by number of every program that is loaded and that we may see.
fn program_names() -> HashMap<u32, String> {
    loaded_programs().filter_map(Result::ok).map(|program| (program.id(), name_of(&program))).collect()
}

fn name_of(program: &ProgramInfo) -> String {
    match program.name_as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "unnamed".to_owned(),
    }
}

fn of_link(link: &LinkMessage, names: &HashMap<u32, String>) -> InterfaceHooks {
    let mut hooks = InterfaceHooks { ifindex: link.header.index, ..InterfaceHooks::default() };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => hooks.interface.clone_from(name),
            LinkAttribute::LinkInfo(infos) => {
                hooks.netkit = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Netkit)));
            }
            LinkAttribute::Xdp(attributes) => hooks.xdp = xdp_programs(attributes, names),
            _ => {}
        }
    }
    hooks
}

/// The kernel repeats a single program's number under its mode, and gives only those when there are several.
fn xdp_programs(attributes: &[LinkXdp], names: &HashMap<u32, String>) -> Vec<HookedProgram> {
    let mut ids: Vec<u32> = Vec::new();
    for attribute in attributes {
        let (LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id)) =
            attribute
        else {
            continue;
        };
        if *id != 0 && !ids.contains(id) {
            ids.push(*id);
        }
    }
    ids.into_iter().map(|id| HookedProgram::new(Some(id), named(names, id))).collect()
}

fn named(names: &HashMap<u32, String>, id: u32) -> String {
    names.get(&id).cloned().unwrap_or_else(|| "unknown".to_owned())
}

fn tcx_programs(interface: &str, way: TcAttachType) -> Vec<HookedProgram> {
    let Ok((_, programs)) = SchedClassifier::query_tcx(interface, way) else { return Vec::new() };
    programs.iter().map(|program| HookedProgram::new(Some(program.id()), name_of(program))).collect()
}

#[derive(Clone, Copy)]
enum Way {
    Ingress,
    Egress,
}

/// The filters on one side of an interface's clsact qdisc; none if it has no such qdisc.
async fn filters(
    handle: &Handle,
    ifindex: u32,
    way: Way,
    names: &HashMap<u32, String>,
) -> Vec<HookedProgram> {
    let Ok(index) = i32::try_from(ifindex) else { return Vec::new() };
    let mut filters = handle.traffic_filter(index);
    let request = match way {
        Way::Ingress => filters.get().ingress(),
        Way::Egress => filters.get().egress(),
    };
    let mut found = Vec::new();
    let mut messages = std::pin::pin!(request.execute());
    while let Some(Ok(message)) = messages.next().await {
        found.extend(filter(&message, names));
    }
    found
}

/// The filter that a message describes. Heads of chains and hash tables, which have no handle, are no filters.
fn filter(message: &TcMessage, names: &HashMap<u32, String>) -> Option<HookedProgram> {
    if u32::from(message.header.handle) == 0 {
        return None;
    }
    let mut found = HookedProgram::new(None, "filter");
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) if found.id.is_none() => found = HookedProgram::new(None, kind),
            TcAttribute::Options(options) => {
                let id = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                    _ => None,
                });
                if let Some(id) = id {
                    found = HookedProgram::new(Some(id), named(names, id));
                }
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(id: u32) -> HookedProgram {
        HookedProgram::new(Some(id), "cil_from_container")
    }

    #[test]
    fn a_program_counts_as_ahead_only_where_ours_is_behind_it() {
        let ours = HookedProgram::new(Some(1), PROGRAM_OUTBOUND);
        assert!(ours.ours);
        let behind = InterfaceHooks {
            interface: "veth0".into(),
            tcx_ingress: vec![ours.clone(), other(2)],
            tcx_egress: vec![other(3)],
            ..InterfaceHooks::default()
        };
        assert!(behind.ahead_of_ours().is_empty(), "after us, or where we are not");
        assert_eq!(judge(std::slice::from_ref(&behind)).status, CheckStatus::Ok);
        let xdp = InterfaceHooks { xdp: vec![other(4)], ..behind };
        assert_eq!(xdp.ahead_of_ours(), ["cil_from_container (id 4)"]);
        let check = judge(&[xdp]);
        assert_eq!(check.status, CheckStatus::Warn);
        assert!(check.found.contains("(id 4) on veth0"), "{}", check.found);
    }

    #[test]
    fn our_programs_are_known_by_what_the_kernel_keeps_of_their_names() {
        for (kept, whole) in [
            ("agentsec_out", "agentsec_out"),
            ("agentsec_link_o", "agentsec_link_out"),
            ("agentsec_link_i", "agentsec_link_in"),
            ("agentsec_link_x", "agentsec_link_xdp"),
        ] {
            let program = HookedProgram::new(Some(1), kept);
            assert_eq!((program.name.as_str(), program.ours), (whole, true));
        }
        let theirs = HookedProgram::new(Some(1), "agentsec_other");
        assert_eq!((theirs.name.as_str(), theirs.ours), ("agentsec_other", false));
    }

    #[test]
    fn an_xdp_program_is_listed_once_under_whichever_attributes() {
        let names = HashMap::from([(7, "filter_udp".to_owned())]);
        let attributes =
            [LinkXdp::ProgId(7), LinkXdp::DrvProgId(7), LinkXdp::SkbProgId(8), LinkXdp::HwProgId(0)];
        let programs = xdp_programs(&attributes, &names);
        let found: Vec<_> = programs.iter().map(|program| (program.id, program.name.as_str())).collect();
        assert_eq!(found, [(Some(7), "filter_udp"), (Some(8), "unknown")]);
    }
}
