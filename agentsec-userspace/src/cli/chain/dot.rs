//! The chain as a graph, and that as a Graphviz digraph.

use crate::cli::units::bytes;
use crate::record::chain::Chain;
use std::collections::BTreeMap;

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
    start: bool,
    contained: bool,
}

#[derive(Debug)]
pub(super) struct Edge {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) label: Vec<String>,
    pub(super) outward: bool,
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
        for hop in &chain.lateral_movement {
            let ends = (graph.node(&mut numbers, &hop.from, false), graph.node(&mut numbers, &hop.to, false));
            let label = vec![
                format!("hop {}", hop.hop),
                hop.at.to_string(),
                format!("{} {}", hop.protocol, hop.endpoint),
            ];
            graph.edges.push(Edge { from: ends.0, to: ends.1, label, outward: false });
        }
        for out in &chain.exfiltration {
            let name = format!("{} {}", out.protocol, out.endpoint);
            let ends = (graph.node(&mut numbers, &out.agent, false), graph.node(&mut numbers, &name, true));
            let label = vec!["exfiltration".into(), out.first.to_string(), bytes(out.bytes_sent)];
            graph.edges.push(Edge { from: ends.0, to: ends.1, label, outward: true });
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

pub(super) fn render(chain: &Chain) -> String {
    let graph = Graph::of(chain);
    let mut text = String::from("digraph chain {\n  rankdir=LR;\n  node [shape=box];\n");
    for (number, node) in graph.nodes.iter().enumerate() {
        let shape = if node.outside { " shape=ellipse" } else { "" };
        let fill = if node.start { " style=filled fillcolor=\"#ffdddd\"" } else { "" };
        let edge = if node.contained { " penwidth=3 color=\"#008800\"" } else { "" };
        text.push_str(&format!("  n{number} [label=\"{}\"{shape}{fill}{edge}];\n", quoted(&node.label)));
    }
    for edge in &graph.edges {
        let style = if edge.outward { " style=bold color=\"#cc0000\"" } else { "" };
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
