//! `[recorder]` and what a profile says of its own.

use super::*;
use crate::recorder::RecorderMode;

#[test]
fn a_recorder_is_sampled_and_shows_headers_only_unless_told_otherwise() {
    let config = parse_one("").unwrap();
    let sampling = config.sampling("default");
    assert_eq!((config.recorder.max_agents, config.recorder.packets(), config.recorder.keep), (256, 256, 64));
    assert_eq!(
        (sampling.mode, sampling.one_in, sampling.always_above_milli),
        (RecorderMode::Sampled, 16, 300)
    );
    assert_eq!((sampling.payload, sampling.snap_bytes), (false, 128));
}

#[test]
fn recordings_expire_when_told_or_never() {
    let expire_ns = |text: &str| parse_one(text).unwrap().recorder.expire_ns;
    let day = 86_400_000_000_000;
    assert_eq!(expire_ns(""), Some(90 * day));
    assert_eq!(expire_ns("[recorder]\nexpire = \"7d\"\n"), Some(7 * day));
    assert_eq!(expire_ns("[recorder]\nexpire = \"off\"\n"), None);
    refused("[recorder]\nexpire = \"never\"\n", &["recorder.expire", "a duration from \"1s\""]);
}

#[test]
fn a_profile_overrides_what_it_names() {
    let config = parse_one(
        r#"
[recorder]
mode = "off"
one_in = 4
payload = true
bytes = 96
packets = 1024
max_agents = 3
[profiles.web]
recorder = { mode = "always", always_above_risk = 0.5 }
"#,
    )
    .unwrap();
    let (web, other) = (config.sampling("web"), config.sampling("default"));
    assert_eq!((web.mode, web.one_in, web.always_above_milli), (RecorderMode::Always, 4, 500));
    assert_eq!((web.payload, web.snap_bytes, other.mode), (true, 96, RecorderMode::Off));
    assert_eq!(config.recorder.records(), 3 * 1024);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_is_allowed() {
    refused(
        "[recorder]\nmode = \"some\"\n",
        &["a.toml:2", "recorder.mode", "\"off\", \"sampled\", \"always\""],
    );
    refused("[recorder]\npackets = 100\n", &["recorder.packets", "is 100", "a power of two from 16 to 4096"]);
    refused("[recorder]\npackets = 8192\n", &["recorder.packets", "16 to 4096"]);
    refused("[recorder]\nbytes = 200\n", &["recorder.bytes", "64 to 128"]);
    refused("[recorder]\none_in = 0\n", &["recorder.one_in", "1 to 16383"]);
    refused("[recorder]\nalways_above_risk = 2\n", &["recorder.always_above_risk", "0 to 1"]);
    refused("[recorder]\npayloads = true\n", &["recorder.payloads", "perhaps `payload` is meant"]);
    refused("[profiles.a]\nrecorder = { keep = 3 }\n", &["profiles.a.recorder.keep", "is not a key here"]);
    refused("[recorder]\nmax_agents = 65536\n", &["recorder.max_agents", "too much memory", "4194304"]);
}

#[test]
fn every_agent_that_is_recorded_needs_a_recorder() {
    let agents = "[agents.a]\ninterface = \"veth1\"\n[agents.b]\ninterface = \"veth2\"\n";
    refused(
        &format!("[recorder]\nmax_agents = 1\n{agents}"),
        &["a.toml:2", "recorder.max_agents", "is 1, but 2 agents are recorded", "at least 2"],
    );
    assert!(parse_one(&format!("[recorder]\nmax_agents = 1\nmode = \"off\"\n{agents}")).is_ok());
}
