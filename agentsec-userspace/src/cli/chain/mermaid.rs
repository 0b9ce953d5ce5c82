//! The chain as a Mermaid flowchart.

use super::dot::Graph;
use crate::record::chain::Chain;

pub(super) fn render(chain: &Chain) -> String {
    let graph = Graph::of(chain);
    let mut text = String::from("flowchart LR\n");
    for (number, node) in graph.nodes.iter().enumerate() {
        let (open, close) = if node.outside { ("([", "])") } else { ("[", "]") };
        text.push_str(&format!("  n{number}{open}\"{}\"{close}\n", quoted(&node.label.join("<br/>"))));
    }
    for edge in &graph.edges {
        let arrow = if edge.outward { "==>" } else { "-->" };
        let label = quoted(&edge.label.join("<br/>"));
        text.push_str(&format!("  n{} {arrow}|\"{label}\"| n{}\n", edge.from, edge.to));
    }
    for (class, style) in [("start", "fill:#fdd,stroke:#c00"), ("contained", "stroke-width:3px,stroke:#080")]
    {
        let members = graph.nodes.iter().enumerate().filter(|(_, node)| node.is(class));
        let members: Vec<_> = members.map(|(number, _)| format!("n{number}")).collect();
        if !members.is_empty() {
            text.push_str(&format!("  classDef {class} {style}\n  class {} {class}\n", members.join(",")));
        }
    }
    text
}

/// Without what Mermaid would take for its own; `<br/>` is ours.
fn quoted(text: &str) -> String {
    text.replace('"', "#quot;").replace(|character: char| character.is_control(), "\u{fffd}")
}
