//! Interfaces, routes and neighbours of the network namespaces in which an agent is.

use std::fmt::Write;

use serde_json::json;

use crate::kernel::interfaces::links;
use crate::kernel::namespaces::inside;
use crate::kernel::namespaces::tables::{self, Neighbour, RouteEntry};

use super::part::Paper;
use super::whereabouts::{Net, Whereabouts};

/// Routes, or neighbours, in one bundle.
const MOST: usize = 10_000;

/// Writes the interfaces.
pub(super) fn interfaces(paper: &Paper, where_: &Whereabouts) -> Result<(), String> {
    each(paper, where_, |net| {
        for link in links().map_err(|error| format!("{error:#}"))? {
            paper.item(json!({
                "network_namespace": net.inode, "interface": link.ifindex, "name": link.name, "kind": link.kind,
                "lower": link.lower, "peer_namespace_id": link.peer_netns, "master": link.master, "mtu": link.mtu,
                "up": link.up,
            }));
        }
        Ok(())
    })
}

/// Writes the routes.
pub(super) fn routes(paper: &Paper, where_: &Whereabouts) -> Result<(), String> {
    listed(paper, where_, "routes", |net, take| {
        tables::routes(|route| take(route_json(net, &route))).map_err(|error| format!("{error:#}"))
    })
}

/// Writes the neighbours.
pub(super) fn neighbours(paper: &Paper, where_: &Whereabouts) -> Result<(), String> {
    listed(paper, where_, "neighbours", |net, take| {
        tables::neighbours(|neighbour| take(neighbour_json(net, &neighbour)))
            .map_err(|error| format!("{error:#}"))
    })
}

fn listed(
    paper: &Paper,
    where_: &Whereabouts,
    what: &str,
    list: impl Fn(&Net, &mut dyn FnMut(serde_json::Value)) -> Result<bool, String> + Sync,
) -> Result<(), String> {
    each(paper, where_, |net| {
        let mut count = 0_usize;
        let whole = list(net, &mut |item| {
            count += 1;
            if count <= MOST {
                paper.item(item);
            }
        })?;
        if count > MOST {
            paper.lacks(format!(
                "{} {what} beyond the first {MOST} of namespace {} are left out",
                count - MOST,
                net.inode
            ));
        }
        if !whole {
            paper.lacks(format!("the {what} of namespace {} changed while they were listed", net.inode));
        }
        Ok(())
    })
}

/// Does `list` inside every namespace of the agent.
fn each(
    paper: &Paper,
    where_: &Whereabouts,
    list: impl Fn(&Net) -> Result<(), String> + Sync,
) -> Result<(), String> {
    if where_.nets.is_empty() && where_.shared.is_empty() {
        where_.unknown.iter().for_each(|why| paper.lacks(why.clone()));
        paper.cannot_be_known("no network namespace of the agent is known");
        return Ok(());
    }
    if !where_.shared.is_empty() {
        paper
            .fact("shared_network_namespaces", where_.shared.iter().map(|net| net.inode).collect::<Vec<_>>());
    }
    for net in where_.nets.iter().chain(&where_.shared) {
        let done = inside(&net.file, || list(net)).map_err(|error| format!("{error:#}"));
        if let Err(why) = done.and_then(|done| done) {
            paper.lacks(format!("network namespace {}: {why}", net.inode));
        }
    }
    Ok(())
}

fn route_json(net: &Net, route: &RouteEntry) -> serde_json::Value {
    json!({
        "network_namespace": net.inode,
        "destination": format!("{}/{}", route.destination, route.length),
        "gateway": route.gateway,
        "interface": route.interface,
        "source": route.source,
        "priority": route.priority,
        "table": route.table,
        "kind": route.kind,
        "protocol": route.protocol,
        "multipath": route.multipath,
    })
}

fn neighbour_json(net: &Net, neighbour: &Neighbour) -> serde_json::Value {
    let link_address = neighbour.link_address.as_ref().map(|bytes| {
        let mut text = String::new();
        for byte in bytes {
            let separator = if text.is_empty() { "" } else { ":" };
            let written = write!(text, "{separator}{byte:02x}");
            debug_assert!(written.is_ok(), "a string takes everything");
        }
        text
    });
    json!({
        "network_namespace": net.inode,
        "address": neighbour.address,
        "link_address": link_address,
        "interface": neighbour.interface,
        "state": neighbour.state,
    })
}
