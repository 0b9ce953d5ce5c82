//! The chain as a graph, and that as a Graphviz digraph.

use crate::cli::units::bytes;
use crate::record::chain::{Chain, Moment};
use std::collections::BTreeMap;

/// Signs of the initial compromise that are drawn, at most; the JSON has all.
const SIGNS_SHOWN: usize = 3;

/// What is drawn.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) label: Vec<String>,
    pub(super) outside: bool,
    /// So many talk to it that it says nothing.
    pub(super) common: bool,
    start: bool,
    contained: bool,
}

#[derive(Debug)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) label: Vec<String>,
    pub(super) kind: EdgeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EdgeKind {
    Hop,
    Outward,
    NotFollowed,
}

impl Node {
    pub(super) fn is(&self, class: &str) -> bool {
        (class == "start" && self.start) || (class == "contained" && self.contained)
    }
}

impl Graph {
    pub(super) fn of(chain: &Chain) -> Self {
        let mut graph = Self::default();
        let mut numbers = BTreeMap::new();
        let start = graph.node(&mut numbers, &chain.agent, false);
        graph.nodes[start].start = true;
        graph.nodes[start].label.extend(signs(chain));
        for hop in &chain.lateral_movement {
            let ends = (graph.node(&mut numbers, &hop.from, false), graph.node(&mut numbers, &hop.to, false));
            let place = format!("{} {}", hop.protocol, hop.endpoint);
            let mut label = vec![format!("hop {}", hop.hop), hop.at.to_string(), place];
            label.extend(hop.because.iter().map(|reason| format!("because {reason}")));
            graph.edges.push(Edge { from: ends.0, to: ends.1, label, kind: EdgeKind::Hop });
        }
        for out in &chain.exfiltration {
            let name = format!("{} {}", out.protocol, out.endpoint);
            let ends = (graph.node(&mut numbers, &out.agent, false), graph.node(&mut numbers, &name, true));
            let mut label = vec!["exfiltration".into(), out.first.to_string(), bytes(out.bytes_sent)];
            label.extend(out.because.iter().map(|reason| format!("because {reason}")));
            graph.edges.push(Edge { from: ends.0, to: ends.1, label, kind: EdgeKind::Outward });
        }
        for common in &chain.excluded {
            let to = graph.node(&mut numbers, &common.what, true);
            graph.nodes[to].common = true;
            graph.nodes[to].label.push(format!("{} agents talk to it: not followed", common.clients));
            for agent in &common.talked_to_by {
                let from = graph.node(&mut numbers, agent, false);
                graph.edges.push(Edge { from, to, label: Vec::new(), kind: EdgeKind::NotFollowed });
            }
        }
        for moment in &chain.containment {
            let number = graph.node(&mut numbers, &moment.agent, false);
            let node = &mut graph.nodes[number];
            if !std::mem::replace(&mut node.contained, true) {
                node.label.push(format!("containment {}", moment.at));
            }
        }
        graph
    }

    fn node(&mut self, numbers: &mut BTreeMap<(bool, String), usize>, name: &str, outside: bool) -> usize {
        *numbers.entry((outside, name.to_owned())).or_insert_with(|| {
            self.nodes.push(Node { label: vec![name.to_owned()], outside, ..Node::default() });
            self.nodes.len() - 1
        })
    }
}

/// Why the chain begins where it does.
fn signs(chain: &Chain) -> Vec<String> {
    let all = &chain.initial_compromise;
    let one = |moment: &Moment| format!("{} {} {}", moment.at, moment.event_type, moment.what);
    let mut lines: Vec<String> = all.iter().take(SIGNS_SHOWN).map(one).collect();
    if let Some(more) = all.len().checked_sub(SIGNS_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("and {more} more signs"));
    }
    lines
}

pub(super) fn render(chain: &Chain) -> String {
    let graph = Graph::of(chain);
    let mut text = String::from("digraph chain {\n  rankdir=LR;\n  node [shape=box];\n");
    for (number, node) in graph.nodes.iter().enumerate() {
        let shape = match node {
            Node { common: true, .. } => " shape=ellipse style=dashed",
            Node { outside: true, .. } => " shape=ellipse",
            _ => "",
        };
        let fill = if node.start { " style=filled fillcolor=\"#ffdddd\"" } else { "" };
        let edge = if node.contained { " penwidth=3 color=\"#008800\"" } else { "" };
        text.push_str(&format!("  n{number} [label=\"{}\"{shape}{fill}{edge}];\n", quoted(&node.label)));
    }
    for edge in &graph.edges {
        let style = match edge.kind {
            EdgeKind::Hop => "",
            EdgeKind::Outward => " style=bold color=\"#cc0000\"",
            EdgeKind::NotFollowed => " style=dashed",
        };
        text.push_str(&format!(
            "  n{} -> n{} [label=\"{}\"{style}];\n",
            edge.from,
            edge.to,
            quoted(&edge.label)
        ));
    }
    text + "}\n"
}

/// Lines of a quoted string.
fn quoted(lines: &[String]) -> String {
    let one = |line: &String| {
        let escaped = line.replace('\\', "\\\\").replace('"', "\\\"");
        escaped.replace(|character: char| character.is_control(), "\u{fffd}")
    };
    lines.iter().map(one).collect::<Vec<_>>().join("\\n")
}
