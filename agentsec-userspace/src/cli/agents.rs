//! `agents`: who there is, and where they meet the kernel.

use super::exit::Exit;
use super::style::{self, Style, Tone};
use super::table::{Cell, Table};
use super::{Context, Outcome};
use crate::api::views::{AgentList, Attachment};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let list: AgentList = context.client.get("/v1/agents").await?;
        if context.output.json {
            context.output.object(&list)?;
        } else {
            context.output.text(&render(&list, context.output.style))?;
        }
        Ok(Exit::Ok)
    }
}

fn render(list: &AgentList, style: Style) -> String {
    if list.agents.is_empty() {
        return "no agents are configured\n".into();
    }
    let mut table =
        Table::new(&["AGENT", "STATE", "MODE", "RISK", "PROFILE", "TAGS", "ATTACHMENT", "STATUS"]);
    for agent in &list.agents {
        let mut attachments = agent.attachments.iter();
        let mut row = vec![
            Cell::new(&agent.id).tone(Tone::Strong),
            Cell::new(agent.state.name()).tone(style::of_state(agent.state)),
            Cell::new(agent.mode.name()).tone(style::of_mode(agent.mode)),
            Cell::number(agent.risk.to_string()),
            Cell::new(&agent.profile),
            Cell::new(agent.tags.join(" ")),
        ];
        row.extend(attachments.next().into_iter().flat_map(attachment_cells));
        table.row(row);
        for more in attachments {
            table.row(std::iter::repeat_n(Cell::default(), 6).chain(attachment_cells(more)));
        }
    }
    table.render(style)
}

/// What it is attached to, and how far that has come.
fn attachment_cells(attachment: &Attachment) -> [Cell; 2] {
    let hook = attachment.hook.iter().map(|hook| format!(" ({hook})")).collect::<String>();
    let more = attachment.error.iter().chain(&attachment.remark).map(|text| format!(": {text}"));
    let status = format!("{}{}", attachment.status.name(), more.collect::<String>());
    [
        Cell::new(format!("{}{hook}", attachment.target())),
        Cell::new(status).tone(style::of_attachment(attachment.status)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::views::tests::one_agent;
    use crate::api::views::{AttachmentKind, AttachmentStatus};

    #[test]
    fn every_attachment_has_its_line() {
        let mut status = one_agent();
        status.agents[0].attachments.push(Attachment {
            interface: Some("veth9".into()),
            status: AttachmentStatus::Missing,
            error: Some("no such interface".into()),
            ..Attachment::default()
        });
        status.agents[0].attachments.push(Attachment {
            kind: AttachmentKind::Address,
            address: Some("10.1.2.3".into()),
            interface: Some("br0".into()),
            hook: Some("xdp+tcx".into()),
            status: AttachmentStatus::Attached,
            ..Attachment::default()
        });
        status.agents[0].attachments.push(Attachment {
            kind: AttachmentKind::Cgroup,
            cgroup: Some("system.slice/agent-mailer.service".into()),
            hook: Some("cgroup_skb".into()),
            status: AttachmentStatus::Attached,
            remark: Some("a socket is older than it".into()),
            ..Attachment::default()
        });
        let text = render(&AgentList::from(&status), Style::default());
        let expected = "\
AGENT    STATE  MODE      RISK  PROFILE  TAGS      ATTACHMENT                                      STATUS
crawler  OPEN   enforce  0.700  web      batch eu  veth-crawler (tcx)                              attached
                                                   veth9                                           missing: no such interface
                                                   10.1.2.3 on br0 (xdp+tcx)                       attached
                                                   system.slice/agent-mailer.service (cgroup_skb)  attached: a socket is older than it
";
        assert_eq!(text, expected);
    }
}
