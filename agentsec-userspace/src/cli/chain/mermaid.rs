//! The chain as a Mermaid flowchart.

use super::dot::{EdgeKind, Graph};
use crate::record::chain::Chain;

pub(super) fn render(chain: &Chain) -> String {
    let graph = Graph::of(chain);
    let mut text = String::from("flowchart LR\n");
    for (number, node) in graph.nodes.iter().enumerate() {
        let (open, close) = if node.outside { ("([", "])") } else { ("[", "]") };
        text.push_str(&format!("  n{number}{open}\"{}\"{close}\n", quoted(&node.label)));
    }
    for edge in &graph.edges {
        let arrow = match edge.kind {
            EdgeKind::Hop => "-->",
            EdgeKind::Outward => "==>",
            EdgeKind::NotFollowed => "-.->",
        };
        let label = Some(quoted(&edge.label)).filter(|label| !label.is_empty());
        let label = label.map(|label| format!("|\"{label}\"|")).unwrap_or_default();
        text.push_str(&format!("  n{} {arrow}{label} n{}\n", edge.from, edge.to));
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

/// Lines without what Mermaid, or a browser, would take for its own.
fn quoted(lines: &[String]) -> String {
    let one = |line: &String| {
        line.chars().fold(String::new(), |mut text, character| {
            match character {
                '"' => text.push_str("#quot;"),
                '<' => text.push_str("#lt;"),
                '>' => text.push_str("#gt;"),
                '&' => text.push_str("#amp;"),
                '#' => text.push_str("#35;"),
                '`' => text.push_str("#96;"),
                control if control.is_control() => text.push('\u{fffd}'),
                plain => text.push(plain),
            }
            text
        })
    };
    lines.iter().map(one).collect::<Vec<_>>().join("<br/>")
}
