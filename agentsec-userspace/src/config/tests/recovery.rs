//! `[recovery]` and `[agents.NAME.recovery]`.

use super::*;
use crate::config::recovery::{Freeze, Keep, StateSource};

#[test]
fn an_agents_state_and_how_it_comes_back_are_read() {
    let config = parse_one(
        "[recovery]\nrepository = \"rest:http://localhost:8000/\"\nlookback = \"2m\"\nmemory = \"1MiB\"\n\
         [agents.a]\ninterface = \"v0\"\n[agents.a.recovery]\ndirectory = \"/srv/a\"\nfreeze = \"apps/a\"\n\
         stop = [\"/bin/stop\", \"a\"]\ninterval = \"off\"\ndependencies = [\"b\"]\nkeep = { last = 3 }\n\
         [agents.b]\ninterface = \"v1\"\nrecovery = { command = [\"/bin/dump\"], restore = [\"/bin/load\"] }\n",
    )
    .unwrap();
    assert_eq!(config.recovery.repository.as_deref(), Some("rest:http://localhost:8000"));
    assert_eq!(config.recovery.lookback_ns, 120_000_000_000);
    assert_eq!(config.recovery.memory_bytes, Some(1 << 20));
    let a = config.agents["a"].recovery.as_ref().unwrap();
    assert_eq!(a.source, StateSource::Directory("/srv/a".into()));
    assert_eq!((&a.freeze, a.interval_ns), (&Freeze::Cgroup("apps/a".into()), None));
    assert_eq!(a.keep, Keep { last: 3, ..Keep::default() });
    let b = config.agents["b"].recovery.as_ref().unwrap();
    assert_eq!(
        (&b.source, b.interval_ns),
        (&StateSource::Command(vec!["/bin/dump".into()]), Some(300_000_000_000))
    );
}

#[test]
fn what_makes_no_sense_names_its_place_and_what_is_allowed() {
    for (body, message) in [
        ("", "exactly one of directory, command, handed = true"),
        ("directory = \"/a\"\nhanded = true", "exactly one of directory, command, handed = true"),
        ("directory = \"relative\"", "an absolute path without `..`"),
        ("directory = \"/a/../etc\"", "an absolute path without `..`"),
        ("directory = \"/\"", "an absolute path without `..`"),
        ("command = [\"dump\"]\nrestore = [\"/bin/load\"]", "the first an absolute path"),
        ("command = [\"/bin/dump\"]", "restore"),
        ("directory = \"/a\"\nrepository = \"b/c\"", "an absolute directory, or a location"),
        ("directory = \"/a\"\nfreeze = \"a/../b\"", "a cgroup's path"),
        ("directory = \"/a\"\ninterval = \"0s\"", "a duration from"),
        ("directory = \"/a\"\nkeep = { last = 0 }", "an integer from 1"),
        ("directory = \"/a\"\ndependencies = [\"nobody\"]", "agents with a recovery section"),
        ("directory = \"/a\"\ndependencies = [\"a\"]", "depends on itself"),
        ("directory = \"/a\"\ndirectry = \"/b\"", "perhaps `directory` is meant"),
    ] {
        let text = format!("[agents.a]\ninterface = \"v0\"\n[agents.a.recovery]\n{body}\n");
        let problems = problems(&text).join("\n");
        assert!(problems.contains(message) && problems.contains("a.toml:"), "{body}: {problems}");
    }
}

#[test]
fn two_agents_may_not_share_what_is_restored() {
    let both = "[agents.a]\ninterface = \"v0\"\nrecovery = { directory = \"/srv/x\" }\n\
                [agents.b]\ninterface = \"v1\"\nrecovery = { directory = \"/srv/x/below\" }\n";
    refused(both, &["overlaps that of `a`"]);
    let both = "[agents.a]\ninterface = \"v0\"\nrecovery = { directory = \"/srv/x\", repository = \"/r\" }\n\
                [agents.b]\ninterface = \"v1\"\nrecovery = { directory = \"/srv/y\", repository = \"/r/\" }\n";
    refused(both, &["is that of `a` too"]);
}

#[test]
fn memory_is_an_amount_or_off() {
    let bytes =
        |value: &str| parse_one(&format!("[recovery]\n{value}\n")).map(|config| config.recovery.memory_bytes);
    assert_eq!(bytes("").unwrap(), Some(32 << 20));
    assert_eq!(bytes("memory = \"off\"").unwrap(), None);
    refused("[recovery]\nmemory = \"much\"\n", &["recovery.memory", "MiB"]);
    refused("[recovery]\nmemory = \"0B\"\n", &["recovery.memory"]);
}
