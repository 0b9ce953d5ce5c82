//! Where agents are, and that no two are the same packets.

use super::*;

const EVERY: &str = r#"
[agents.batch]
cgroup = "/system.slice/agent-*.service"
newcomer = "half_open"

[agents.boxes]
address = ["10.1.2.3", "10.2.0.0/24", "2001:db8::/64", "::ffff:10.3.0.1"]
link = "br0"
datapath = "xdp"

[agents.crawler]
interface = "veth-crawler"
cgroup = "/system.slice/crawler.service"

[agents.mailer]
unit = "agent-mailer.service"

[agents.taps]
interface = "tap*"
"#;

fn ids(config: &Config, cgroup: &str) -> Option<(String, String)> {
    config.agent_in(cgroup).map(|found| (found.id.to_owned(), found.section.to_owned()))
}

fn named(id: &str, section: &str) -> Option<(String, String)> {
    Some((id.to_owned(), section.to_owned()))
}

#[test]
fn every_kind_of_attachment_is_read() {
    let config = parse_one(EVERY).unwrap();
    let boxes = config.addresses().collect::<Vec<_>>();
    assert_eq!(boxes.len(), 1);
    let (id, address) = boxes[0];
    assert_eq!((id, &*address.link, address.datapath), ("boxes", "br0", Datapath::Xdp));
    let prefixes: Vec<String> = address.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.1.2.3/32", "10.2.0.0/24", "2001:db8::/64", "10.3.0.1/32"]);
    assert_eq!(config.agent_on("veth-crawler").unwrap().id, "crawler");
    assert!(config.has_cgroups() && !parse_one("[agents.a]\ninterface = 'e1'").unwrap().has_cgroups());
    let adopting: Vec<&str> =
        config.agents.iter().filter(|(_, agent)| agent.adopts()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(adopting, ["batch", "taps"]);
}

#[test]
fn an_exact_path_wins_over_a_unit_and_a_unit_over_patterns() {
    let config = parse_one(
        "[agents.a]\nunit = 'x*'\n[agents.b]\ncgroup = 's/?*1'\n[agents.c]\nunit = 'x1'\n[agents.d]\ncgroup = 's/x1'",
    )
    .unwrap();
    assert_eq!(ids(&config, "s/x1"), named("d", "d"));
    assert_eq!(ids(&config, "/s/x1"), named("d", "d"), "a leading slash means nothing");
    assert_eq!(ids(&config, "t/x1"), named("c", "c"));
    assert_eq!(ids(&config, "s/x2"), named("x2", "a"), "the first section in the order of names");
    assert_eq!(ids(&config, "s/y1"), named("y1", "b"));
    assert_eq!(ids(&config, "t/y1"), None);
    assert_eq!(ids(&config, ""), None);
}

#[test]
fn an_agent_cannot_become_another_by_making_a_cgroup_inside_its_own() {
    let config = parse_one(EVERY).unwrap();
    assert_eq!(ids(&config, "agent-mailer.service"), named("mailer", "mailer"));
    for inside in [
        "system.slice/crawler.service/agent-mailer.service",
        "system.slice/agent-1.service/agent-mailer.service",
        "system.slice/agent-1.service/x/agent-mailer.service",
    ] {
        assert_eq!(ids(&config, inside), None, "{inside}");
    }
}

#[test]
fn a_cgroup_that_no_agent_can_be_named_after_is_left_alone_and_said() {
    let config = parse_one("[agents.p]\nunit = 'a*'\n[agents.b]\nunit = 'b'").unwrap();
    let (fits, long) = (format!("a{}", "x".repeat(63)), format!("a{}", "x".repeat(64)));
    assert_eq!(ids(&config, &fits), named(&fits, "p"));
    for odd in ["a@1:2\\x2d.service", "aé"] {
        assert_eq!(ids(&config, odd), named(odd, "p"));
    }
    for bad in [&long, "a\n"] {
        assert_eq!(ids(&config, bad), None);
        assert!(config.unnameable(bad).unwrap().starts_with("agents.p cannot name an agent"), "{bad:?}");
    }
    assert_eq!(config.unnameable(&fits), None);
    assert_eq!(config.unnameable("c"), None);
    assert_eq!(config.unnameable("s/b"), None);
}

#[test]
fn an_agent_is_found_again_by_its_id() {
    let config = parse_one(EVERY).unwrap();
    let section = |id| config.agent_called(id).map(|found| (found.section.to_owned(), found.adopted));
    assert_eq!(section("mailer"), Some(("mailer".into(), false)));
    assert_eq!(section("boxes"), Some(("boxes".into(), false)));
    assert_eq!(section("agent-7.service"), Some(("batch".into(), true)));
    assert_eq!(section("tap0"), Some(("taps".into(), true)));
    for nobody in ["batch", "br0", "system.slice", "agent-7"] {
        assert_eq!(section(nobody), None, "{nobody}");
    }
}

#[test]
fn a_newcomers_state_is_also_for_adopted_cgroups() {
    let config = parse_one(EVERY).unwrap();
    assert_eq!(config.agent_in("system.slice/agent-1.service").unwrap().newcomer_state(), State::HalfOpen);
    assert_eq!(config.agent_in("system.slice/crawler.service").unwrap().newcomer_state(), State::Closed);
}

#[test]
fn only_what_is_inside_the_cgroup_root_is_an_agent() {
    let config = parse_one(
        "[daemon]\ncgroup_root = '/agents.slice'\n[agents.u]\nunit = 'u'\n[agents.p]\ncgroup = '*/p-*'",
    )
    .unwrap();
    assert_eq!(config.daemon.cgroup_root.as_deref(), Some("agents.slice"));
    assert_eq!(ids(&config, "agents.slice/u"), named("u", "u"));
    assert_eq!(ids(&config, "agents.slice2/u"), None);
    assert_eq!(ids(&config, "u"), None);
    for (line, outside) in
        [("cgroup = 'system.slice/a'", "system.slice/a"), ("cgroup = 'a'", "a"), ("cgroup='b-*/*'", "b-*/*")]
    {
        refused(
            &format!("[daemon]\ncgroup_root = 'agents.slice'\n[agents.a]\n{line}"),
            &[&format!("a.toml:4: agents.a.cgroup: \"{outside}\" is not inside daemon.cgroup_root")],
        );
    }
    refused("[daemon]\ncgroup_root = '/'", &["a.toml:2: daemon.cgroup_root: \"/\" is the root"]);
    refused("[daemon]\ncgroup_root = 'a*'", &["a.toml:2: daemon.cgroup_root: \"a*\" is a pattern"]);
}

#[test]
fn what_cannot_be_an_attachment_is_refused_at_its_place() {
    for (lines, expected) in [
        ("cgroup = '/'", "a.toml:2: agents.a.cgroup: \"/\" is the root"),
        ("cgroup = 's/../t'", "a.toml:2: agents.a.cgroup: \"s/../t\": \"..\" is no name"),
        ("cgroup = 's//t'", "a.toml:2: agents.a.cgroup: \"s//t\": a name is empty"),
        ("cgroup = \"s\\u0000\"", "a.toml:2: agents.a.cgroup: "),
        ("cgroup = '1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17'", "a.toml:2: agents.a.cgroup: \"1/2/3"),
        ("cgroup = '*/main'", "a.toml:2: agents.a.cgroup: \"*/main\" would name all its agents \"main\""),
        ("unit = 's/t'", "a.toml:2: agents.a.unit: \"s/t\" is a path"),
        ("unit = 1", "a.toml:2: agents.a.unit: is an integer"),
        ("unit = 'u'\ncgroup = 's/t'", "a.toml:2: agents.a.unit: is a second way to say which cgroup"),
        ("address = '10.0.0.1'", "a.toml:2: agents.a.link: is missing"),
        ("address = []\nlink = 'br0'", "a.toml:2: agents.a.address: is empty"),
        (
            "address = ['10.0.0.1', 'x']\nlink = 'br0'",
            "a.toml:2: agents.a.address[1]: \"x\" is not an address",
        ),
        (
            "address = '10.0.0.1/8'\nlink = 'br0'",
            "a.toml:2: agents.a.address: \"10.0.0.1/8\" has host bits set",
        ),
        ("address = '::/0'\nlink = 'br0'", "a.toml:2: agents.a.address: \"::/0\" is every address"),
        ("address = '10.0.0.1'\nlink = 'br*'", "a.toml:3: agents.a.link: \"br*\" is a pattern"),
        ("interface = 'e1'\nlink = 'br0'", "a.toml:3: agents.a.link: needs an address"),
        ("unit = 'u'\ndatapath = 'tc'", "a.toml:3: agents.a.datapath: needs an address"),
        ("address = '10.0.0.1'\nlink = 'br0'\ndatapath = 'ebpf'", "a.toml:4: agents.a.datapath: is \"ebpf\""),
        (
            "interface = 'e1'\naddress = '10.0.0.1'\nlink = 'br0'",
            "a.toml:3: agents.a.address: would count packets",
        ),
        ("interface = 'e*'\nunit = 'u'", "a.toml:3: agents.a.unit: is a second attachment"),
        ("interface = 'e1'\nunit = 'u*'", "a.toml:3: agents.a.unit: is a second attachment"),
        (
            "address = '10.0.0.1'\nlink = 'br0'\ncgroup = 's/*'",
            "a.toml:2: agents.a.address: is a second attachment",
        ),
        ("unit = 'u'\nnewcomer = 'open'", "a.toml:3: agents.a.newcomer: needs a pattern"),
    ] {
        refused(&format!("[agents.a]\n{lines}"), &[expected, "; allowed: "]);
    }
}

#[test]
fn two_agents_that_would_be_the_same_are_both_named() {
    let boxes = |a: &str, b: &str| {
        format!("[agents.a]\naddress = {a}\nlink = 'br0'\n[agents.b]\naddress = {b}\nlink = 'br0'")
    };
    for (text, expected) in [
        (
            "[agents.a]\ncgroup = 's/t'\n[agents.b]\ncgroup = '/s/t'".to_owned(),
            ["a.toml:4: agents.b.cgroup: \"s/t\"", "agents.a's, at a.toml:2"],
        ),
        (
            "[agents.a]\ncgroup = 's/t/u/v'\n[agents.b]\ncgroup = 's/t'".to_owned(),
            ["a.toml:2: agents.a.cgroup: \"s/t/u/v\" is inside \"s/t\"", "agents.b's, at a.toml:4"],
        ),
        (
            "[agents.a]\ncgroup = 's/t/u'\n[agents.b]\nunit = 't*'".to_owned(),
            ["a.toml:2: agents.a.cgroup: \"s/t/u\" is inside \"s/t\"", "agents.b's, at a.toml:4"],
        ),
        (
            "[agents.a]\nunit = 'u'\n[agents.b]\nunit = 'u'".to_owned(),
            ["a.toml:4: agents.b.unit: \"u\"", "agents.a's, at a.toml:2"],
        ),
        (
            boxes("'10.0.0.1'", "'10.0.0.1'"),
            [
                "a.toml:5: agents.b.address: 10.0.0.1/32 overlaps 10.0.0.1/32",
                "agents.a's on link \"br0\" already, at a.toml:2",
            ],
        ),
        (
            boxes("'10.1.0.0/16'", "['9.0.0.1', '10.0.0.0/8']"),
            ["a.toml:5: agents.b.address: 10.0.0.0/8 overlaps 10.1.0.0/16", "agents.a's"],
        ),
        (
            boxes("'::ffff:10.0.0.1'", "'10.0.0.0/8'"),
            ["a.toml:5: agents.b.address: 10.0.0.0/8 overlaps 10.0.0.1/32", "agents.a's"],
        ),
        (
            boxes("['10.1.0.0/16', '10.0.0.0/8']", "'11.0.0.0/8'"),
            ["a.toml:2: agents.a.address: ", "agents.a's"],
        ),
        (
            "[agents.a]\naddress = '10.0.0.1'\nlink = 'br0'\n[agents.b]\ninterface = 'br*'".to_owned(),
            ["a.toml:3: agents.a.link: \"br0\"", "is an interface of agents.b"],
        ),
    ] {
        refused(&text, &expected);
    }
    let apart = "[agents.a]\naddress = '10.0.0.1'\nlink = 'br0'\n[agents.b]\naddress = '10.0.0.1'\nlink = 'br1'\n\
                 [agents.c]\naddress = ['::/8', '2001:db8::/32', '10.0.0.2']\nlink = 'br0'";
    parse_one(apart).unwrap();
}

#[test]
fn an_agents_name_cannot_be_taken_by_a_cgroup_pattern() {
    for pattern in ["unit = 'x*'", "cgroup = 's/*'", "cgroup = '*/x*'"] {
        refused(
            &format!("[agents.x1]\ninterface = 'e1'\n[agents.p]\n{pattern}"),
            &["a.toml:2: agents.x1: agents.p would name an agent in a cgroup \"x1\" the same"],
        );
    }
    refused(
        "[agents.x1]\ncgroup = 's/x1'\n[agents.p]\nunit = 'x*'",
        &["a.toml:2: agents.x1: agents.p would name"],
    );
    for claimed in [
        "[agents.x1]\nunit = 'x1'\n[agents.p]\nunit = 'x*'",
        "[agents.x1]\ncgroup = 's/x1'\n[agents.p]\ncgroup = 's/*'",
    ] {
        let config = parse_one(claimed).unwrap();
        assert_eq!(ids(&config, "s/x1"), named("x1", "x1"));
    }
    refused(
        "[breaker]\nnever_isolate = ['y']\n[agents.p]\nunit = 'x*'",
        &["a.toml:2: breaker.never_isolate"],
    );
    parse_one("[breaker]\nnever_isolate = ['x1']\n[agents.p]\nunit = 'x*'").unwrap();
}
