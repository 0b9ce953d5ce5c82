//! An interaction that an application tells of, because no packet shows it: through a queue, inside TLS, over a Unix
//! socket.

use crate::core::draft::{Draft, EventKind};
use crate::core::time::Time;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What is reported of one message.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Names the interaction: both sides report the same. Up to 128 printable characters.
    pub id: String,
    /// The other side: an agent's id, or whatever names it. Up to 128 printable characters.
    #[serde(default)]
    pub peer: Option<String>,
    /// The agent got the message; else it sent it.
    #[serde(default)]
    pub received: bool,
    /// What it was, such as `http GET`. Up to 64 printable characters.
    #[serde(default)]
    pub message_type: Option<String>,
    /// SHA-256 of the payload, 64 digits in hex.
    #[serde(default)]
    pub payload_hash: Option<String>,
    /// The answer's status.
    #[serde(default)]
    pub response_code: Option<u16>,
    /// Time to the answer, milliseconds.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// How the sender said who it is: a scheme such as `bearer` or `mtls`, never the credential.
    #[serde(default)]
    pub auth_method: Option<String>,
    /// W3C trace id, 32 digits in lower-case hex.
    #[serde(default)]
    pub trace_id: Option<String>,
}

impl Report {
    /// Whether it can be recorded.
    ///
    /// # Errors
    ///
    /// What is wrong, with what is allowed.
    pub fn check(&self) -> Result<(), String> {
        let text = |name: &str, value: &str, most: usize| {
            let is_good = !value.is_empty()
                && value.chars().count() <= most
                && !value.chars().any(char::is_control)
                && value.trim() == value;
            is_good.then_some(()).ok_or_else(|| {
                format!("{name}: it is {value:?}; allowed are 1 to {most} printable characters without space around them")
            })
        };
        let hex = |name: &str, value: &str, digits: usize| {
            let is_good =
                value.len() == digits && value.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            is_good.then_some(()).ok_or_else(|| {
                format!("{name}: it is {value:?}; allowed are {digits} digits in lower-case hex")
            })
        };
        text("id", &self.id, 128)?;
        self.peer.as_deref().map_or(Ok(()), |peer| text("peer", peer, 128))?;
        self.message_type.as_deref().map_or(Ok(()), |kind| text("message_type", kind, 64))?;
        self.auth_method.as_deref().map_or(Ok(()), scheme)?;
        self.payload_hash.as_deref().map_or(Ok(()), |hash| hex("payload_hash", hash, 64))?;
        self.trace_id.as_deref().map_or(Ok(()), |trace| hex("trace_id", trace, 32))?;
        if self.trace_id.as_deref().is_some_and(|trace| trace.bytes().all(|digit| digit == b'0')) {
            return Err("trace_id: it is all zeros, which names no trace; allowed is any other".to_owned());
        }
        match self.latency_ms {
            Some(latency) if !(latency.is_finite() && (0.0..=1e9).contains(&latency)) => {
                Err(format!("latency_ms: it is {latency}; allowed is 0 to 1000000000"))
            }
            _ => Ok(()),
        }
    }

    /// Its event, about `agent`. A trace names it before what was reported: other tools know the trace.
    #[must_use]
    pub fn draft(&self, now: Time, agent: &str, by: &str) -> Draft {
        let (one, other) = (Some(agent), self.peer.as_deref());
        let (source, target) = if self.received { (other, one) } else { (one, other) };
        let data = json!({
            "source_agent": source,
            "target_agent": target,
            "message_type": self.message_type.as_deref().unwrap_or("message"),
            "payload_hash": self.payload_hash,
            "response_code": self.response_code,
            "latency_ms": self.latency_ms,
            "auth_method": self.auth_method,
            "trace_id": self.trace_id,
            "reported_id": self.id,
            "reported_by": by,
        });
        let correlation_id = Some(self.trace_id.clone().unwrap_or_else(|| self.id.clone()));
        let agent_id = Some(agent.to_owned());
        Draft { agent_id, correlation_id, ..Draft::daemon(now, EventKind::AgentInteraction, data) }
    }
}

/// A scheme is one word. More is likely to be a credential, which has no place in a log.
fn scheme(method: &str) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !method.is_empty() && method.len() <= 32 && method.bytes().all(is_word) {
        Ok(())
    } else {
        Err("auth_method: it is not the name of a scheme; allowed are 1 to 32 letters, digits and -_."
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report { id: "job-7".into(), peer: Some("mailer".into()), ..Report::default() }
    }

    #[test]
    fn both_sides_have_the_same_id_and_the_same_source() {
        let at = Time { mono_ns: 1, wall_ns: 2 };
        let sent = report().draft(at, "crawler", "uid 0");
        let got =
            Report { received: true, peer: Some("crawler".into()), ..report() }.draft(at, "mailer", "uid 0");
        assert_eq!(
            (&sent.correlation_id, &got.correlation_id),
            (&Some("job-7".into()), &sent.correlation_id)
        );
        for name in ["source_agent", "target_agent", "reported_id"] {
            assert_eq!(sent.data[name], got.data[name], "{name}");
        }
        let traced = Report { trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()), ..report() };
        let id = traced.draft(at, "crawler", "uid 0").correlation_id;
        assert_eq!(id, traced.trace_id, "others know the trace");
    }

    #[test]
    fn what_cannot_be_recorded_is_named_with_what_is_allowed() {
        assert_eq!(report().check(), Ok(()));
        let long = "x".repeat(129);
        let wrong = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            report.check().unwrap_err()
        };
        assert!(Report { id: long, ..report() }.check().is_err());
        for (said, name) in [
            (wrong(|report| report.id.clear()), "id"),
            (wrong(|report| report.peer = Some("a\nb".into())), "peer"),
            (wrong(|report| report.message_type = Some(" x".into())), "message_type"),
            (wrong(|report| report.payload_hash = Some("AB".into())), "payload_hash"),
            (wrong(|report| report.trace_id = Some("0".into())), "trace_id"),
            (wrong(|report| report.trace_id = Some("0".repeat(32))), "trace_id"),
            (wrong(|report| report.latency_ms = Some(f64::NAN)), "latency_ms"),
            (wrong(|report| report.auth_method = Some("Bearer eyJhbGciOi".into())), "auth_method"),
        ] {
            assert!(said.starts_with(name) && said.contains("allowed"), "{said}");
        }
        let secret = wrong(|report| report.auth_method = Some("Bearer eyJhbGciOi".into()));
        assert!(!secret.contains("eyJ"), "what may be a credential is not repeated: {secret}");
    }
}
