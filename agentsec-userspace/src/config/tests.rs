//! Whole configurations, as operators write them.

mod attachments;
mod bundles;
mod log;
mod recorder;
mod recovery;

use super::*;
use agentsec_common::policy::State;
use agentsec_common::profile::{FOLLOW_FLOWS, JUDGE_REQUESTS, NO_LIMIT, TELL_FLOWS};

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.into() }
}

fn parse_one(text: &str) -> Result<Config, Errors> {
    parse(&[source("a.toml", text)])
}

/// Messages of a configuration that must have problems.
fn problems(text: &str) -> Vec<String> {
    parse_one(text).expect_err(text).0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in expected {
        assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
    }
}

const FULL: &str = r#"
[daemon]
interval = "100ms"
max_agents = 16
max_flows = 2000

[defaults]
profile = "web"
newcomer = "half_open"

[breaker]
cooldown = "5s"
max_cooldown = "1m"
probe = "2s"
auto_probe = false
backoff = 3
never_isolate = ["dns"]
guard = { trips = 2, window = "10s", hold_in_shadow = true }

[profiles.web]
window = "30s"
volume = "outbound"
expected_volume = "1.2MB"
volume_ratio = 2.5
auth_failures = 4
auth_weights = { http_403 = 0.5, refused = 2 }
follow_flows = true
read_ports = "80, 443,8000-8100"
max_flows = 200
expected_requests_per_minute = 120
requests_ratio = 1.5
anomalous_requests = 7
response_time = "20ms"
response_time_deviation = "50ms"
quarantine_threshold = 0.65
weights = { auth = 0.25, endpoints_cap = 0.5, requests = 0.1 }
limits = { max_volume = "50MB", max_unusual_endpoints = 50, max_auth_failures = 9, max_variance = "0.25s" }
probe = { violations = 3, rate = "1MB", burst = "128KiB", min_charge = "1kB" }
max_endpoints = 100
typical = ["10.0.0.0/8", { to = "10.1.2.0/24", ports = "443,8000-8100", protocol = "tcp", direction = "any" }, "any"]

[agents.crawler]
interface = "veth7"
mode = "shadow"
tags = ["batch"]
[agents.crawler.breaker]
cooldown = "7s"

[agents.dns]
interface = "veth8"
profile = "default"

[agents.pool]
interface = "tap*"
newcomer = "open"
"#;

#[test]
fn a_full_configuration_is_read() {
    let config = parse_one(FULL).unwrap();
    assert_eq!(config.daemon.interval_ns, 100_000_000);
    assert_eq!(config.guard, GuardSettings { trips: 2, window_ns: 10_000_000_000, hold_in_shadow: true });
    let web = config.profiles["web"].compile();
    assert_eq!(web.anomalous_volume, 1_500_000, "1.2 MB a minute, half a minute, two and a half times");
    assert_eq!((web.max_volume, web.max_auth_failures_centi), (50_000_000, 900));
    assert_eq!((web.quarantine_threshold, web.weights.auth, web.weights.volume), (650, 250, 400));
    assert_eq!((web.typical_endpoints, web.probe_violations, web.endpoint_cap), (3, 3, 100));
    assert_eq!((web.anomalous_deviation_100us, web.max_deviation_100us), (500, 2500));
    assert_eq!((web.normal_response_100us, web.anomalous_auth_failures_centi), (200, 400));
    assert_eq!(web.anomalous_rate, 90, "120 a minute, half a minute, one and a half times");
    assert_eq!((web.anomalous_requests, web.weights.requests, web.weights.anomalous), (7, 100, 0));
    assert_eq!(web.auth_weights_centi, [100, 50, 100, 100, 200, 25, 0, 0]);
    assert_eq!((web.flow_cap, config.daemon.max_flows), (200, 2000));
    let reads = [79, 80, 443, 444, 8000, 8100, 8101].map(|port| web.reads_port(port));
    assert_eq!(reads, [false, true, true, false, true, true, false]);
    let ProfileConfig { probe_rate_bytes, probe_burst_bytes, probe_min_charge_bytes, .. } =
        config.profiles["web"];
    assert_eq!((probe_rate_bytes, probe_burst_bytes, probe_min_charge_bytes), (1_000_000, 131_072, 1_000));
    let crawler = &config.agents["crawler"];
    assert_eq!((crawler.mode, crawler.profile.as_str()), (Mode::Shadow, "web"));
    assert_eq!((crawler.breaker.cooldown_ns, crawler.breaker.backoff), (7_000_000_000, 3));
    assert_eq!(config.agents["pool"].newcomer, Newcomer::Open);
    assert_eq!(config.profiles["default"].compile().anomalous_volume, NO_LIMIT);
}

#[test]
fn nothing_configured_is_a_configuration() {
    let config = parse_one("").unwrap();
    assert_eq!(config.daemon, DaemonConfig::default());
    assert!(config.profiles.contains_key("default"));
}

#[test]
fn an_exact_interface_wins_over_a_pattern_and_the_first_pattern_wins() {
    let config = parse_one(
        "[agents.a]\ninterface='v*'\n[agents.b]\ninterface='ve*'\n[agents.c]\ninterface='veth1'\n[agents.x]\ninterface='e1'",
    )
    .unwrap();
    let on = |name| config.agent_on(name).map(|found| (found.id.to_owned(), found.section.to_owned()));
    assert_eq!(on("veth1"), Some(("c".into(), "c".into())));
    assert_eq!(on("veth2"), Some(("veth2".into(), "a".into())));
    assert_eq!(on("eth0"), None);
}

#[test]
fn a_newcomers_state_is_for_agents_that_a_pattern_adopts() {
    let config = parse_one(FULL).unwrap();
    let (dns, tap) = (config.agent_on("veth8").unwrap(), config.agent_on("tap3").unwrap());
    assert_eq!((dns.newcomer_state(), tap.newcomer_state()), (State::Closed, State::Open));
    assert!(config.settings(&dns, 1).never_isolate && !config.settings(&tap, 1).never_isolate);
    assert_eq!(config.settings(&tap, 7).row, 7);
    assert_eq!(config.settings(&config.agent_on("veth7").unwrap(), 1).tags, ["batch"]);
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let found = problems(
        "[daemon]\ninterval = \"1ms\"\n[profiles.p]\nwindwo = \"1m\"\ntypical = [\"10.1.0.0/8\"]\n[agents.x]\nprofile = \"q\"\ninterface = \"veth-sixteen-chs\"\n",
    );
    let expected = [
        "a.toml:2: daemon.interval: is \"1ms\"; allowed: a duration from \"10ms\" to \"10s\"",
        "a.toml:4: profiles.p.windwo: is not a key here, perhaps `window` is meant; allowed: ",
        "a.toml:5: profiles.p.typical[0]: \"10.1.0.0/8\" has host bits set, perhaps \"10.0.0.0/8\" is meant; allowed: ",
        "a.toml:7: agents.x.profile: \"q\" is no profile; allowed: default, p",
        "a.toml:8: agents.x.interface: \"veth-sixteen-chs\" is longer than 15 bytes; allowed: ",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn two_agents_on_one_interface_are_both_named() {
    refused(
        "[agents.a]\ninterface = \"veth1\"\n[agents.b]\ninterface = \"veth1\"\n",
        &["a.toml:4: agents.b.interface", "agents.a's, at a.toml:2"],
    );
}

#[test]
fn an_agents_name_cannot_be_taken_by_a_pattern() {
    refused(
        "[agents.veth1]\ninterface = \"e1\"\n[agents.p]\ninterface = \"veth*\"\n",
        &["a.toml:2: agents.veth1", "agents.p"],
    );
}

#[test]
fn names_must_exist() {
    refused(
        "[agents.a]\ninterface = \"e1\"\nprofile = \"webb\"",
        &["a.toml:3: agents.a.profile: \"webb\"", "allowed: default"],
    );
    refused("[breaker]\nnever_isolate = [\"a\"]", &["a.toml:2: breaker.never_isolate", "\"a\" is no agent"]);
    refused("[defaults]\nprofile = \"x\"", &["a.toml:2: defaults.profile"]);
}

#[test]
fn limits_that_a_window_cannot_count_are_refused() {
    refused("[profiles.p]\nlimits = { max_volume = \"600GB\" }", &["a.toml:2: profiles.p.limits.max_volume"]);
    refused(
        "[profiles.p]\nwindow = \"24h\"\nexpected_volume = \"1GB\"",
        &["a.toml:3: profiles.p.expected_volume", "scaled"],
    );
}

#[test]
fn what_passes_on_probation_is_bounded() {
    let refused_probe = |entry: &str, expected: &[&str]| {
        refused(
            &format!("[profiles.p.probe]\n{entry}"),
            &[&["a.toml:2: profiles.p.probe."], expected].concat(),
        );
    };
    refused_probe("rate = \"999B\"", &["rate: is \"999B\"", "from \"1kB\" to \"1GB\""]);
    refused_probe("rate = \"1.1GB\"", &["rate: is \"1.1GB\""]);
    refused_probe("burst = \"131071B\"", &["burst: is \"131071B\"", "from \"128KiB\" to \"1GB\""]);
    refused_probe("min_charge = \"65KiB\"", &["min_charge: is", "from \"1B\" to \"64KiB\""]);
    refused_probe("violations = 0", &["violations: is 0"]);
    refused(
        "[profiles.p]\nprobe_violations = 2",
        &["a.toml:2: profiles.p.probe_violations: is not a key here"],
    );
}

#[test]
fn requests_are_judged_only_with_a_weight_and_connections_followed_unless_told_otherwise() {
    let flags = |text: &str| {
        let profile = parse_one(&format!("[profiles.p]\n{text}")).unwrap().profiles["p"].compile();
        (profile.flags & FOLLOW_FLOWS != 0, profile.flags & JUDGE_REQUESTS != 0)
    };
    assert_eq!(flags(""), (true, false));
    assert_eq!(flags("follow_flows = false"), (false, false));
    assert_eq!(flags("weights = { requests = 0.001 }"), (true, true));
    assert_eq!(flags("weights = { anomalous = 0.2 }"), (true, true));
}

#[test]
fn interactions_are_told_unless_a_profile_or_all_of_it_says_otherwise() {
    let told = |text: &str| {
        let profile = parse_one(&format!("{text}\n[profiles.p]")).unwrap().profiles["p"].compile();
        profile.flags & TELL_FLOWS != 0
    };
    assert!(told(""));
    assert!(told("[interactions]\nenabled = true"));
    assert!(!told("[interactions]\nenabled = false"));
    let of_profile = |text: &str| {
        let profile = parse_one(&format!("[profiles.p]\n{text}")).unwrap().profiles["p"].clone();
        (profile.interactions, profile.compile().flags & TELL_FLOWS != 0)
    };
    assert_eq!(of_profile("interactions = 'all'"), (Interactions::All, true));
    assert_eq!(of_profile("interactions = 'off'"), (Interactions::Off, false));
    assert_eq!(of_profile("follow_flows = false"), (Interactions::Sampled, false));
    let config = parse_one(
        "[interactions]\ncalm_below_risk = 0.35\none_in = 4\ninterval = '10s'\ntell_every = '5m'\nmax_per_second = 50",
    )
    .unwrap()
    .interactions;
    let settings = config.settings;
    assert_eq!((settings.sampling.calm_below_milli, settings.sampling.one_in), (350, 4));
    assert_eq!((settings.sampling.interval_ns, settings.tell_every_ns), (10_000_000_000, 300_000_000_000));
    assert_eq!(settings.max_per_second, 50);
}

#[test]
fn what_is_wrong_with_interactions_is_told_with_its_place() {
    for (text, expected) in [
        ("one_in = 0", "a.toml:2: interactions.one_in: is 0"),
        ("calm_below_risk = 1.5", "a.toml:2: interactions.calm_below_risk: is 1.5"),
        ("interval = '1ms'", "a.toml:2: interactions.interval: is \"1ms\""),
        ("tell_every = '2d'", "a.toml:2: interactions.tell_every: is \"2d\""),
        ("max_per_second = 100001", "a.toml:2: interactions.max_per_second: is 100001"),
        ("enabled = 'yes'", "a.toml:2: interactions.enabled: is"),
        ("sampled = true", "a.toml:2: interactions.sampled: is not a key here"),
    ] {
        refused(&format!("[interactions]\n{text}"), &[expected]);
    }
    let allowed = "\"sampled\", \"all\", \"off\"";
    refused("[profiles.p]\ninteractions = 'some'", &["a.toml:2: profiles.p.interactions", allowed]);
}

#[test]
fn nothing_is_expected_of_requests_and_every_port_is_read_unless_told_otherwise() {
    let profile = ProfileConfig::default().compile();
    assert_eq!((profile.anomalous_rate, profile.anomalous_requests), (u32::MAX, 10));
    assert_eq!((profile.max_deviation_100us, profile.normal_response_100us), (u32::MAX, 500));
    assert_eq!(profile.auth_weights_centi, [100, 100, 100, 100, 0, 25, 0, 0]);
    assert!(profile.reads_port(0) && profile.reads_port(u16::MAX));
    let unread = parse_one("[profiles.p]\nread_ports = 'none'").unwrap().profiles["p"].compile();
    assert!((0..=u16::MAX).all(|port| !unread.reads_port(port)));
}

#[test]
fn what_is_said_of_connections_is_checked() {
    let refused_key = |entry: &str, expected: &[&str]| {
        refused(&format!("[profiles.p]\n{entry}"), &[&["a.toml:2: profiles.p."], expected].concat());
    };
    refused_key("follow_flows = 1", &["follow_flows: is an integer"]);
    refused_key("read_ports = 'all'", &["read_ports: \"all\" is no range", "\"any\", \"none\", or up to 8"]);
    refused_key("read_ports = '90-80'", &["read_ports: \"90-80\" is no range"]);
    refused_key("read_ports = '1,2,3,4,5,6,7,8,9'", &["read_ports: has 9 ranges", "up to 8 ports"]);
    refused_key("max_flows = 0", &["max_flows: is 0", "from 1 to"]);
    refused_key("auth_weights = { http_401 = 101 }", &["auth_weights.http_401: is 101", "from 0 to 100"]);
    refused_key("auth_weights = { http_402 = 1 }", &["auth_weights.http_402: is not a key", "`http_401`"]);
    refused_key("weights = { requests = 1.1 }", &["weights.requests: is 1.1", "from 0 to 1"]);
    refused_key("requests_ratio = 0", &["requests_ratio: is 0", "from 0.001 to 1000"]);
    refused_key("anomalous_requests = -1", &["anomalous_requests: is -1"]);
    refused_key("limits = { max_variance = '6.6s' }", &["limits.max_variance: is \"6.6s\"", "\"100us\""]);
    refused_key("response_time = '1.05ms'", &["response_time: is \"1.05ms\"", "in steps of \"100us\""]);
    refused_key(
        "expected_requests_per_minute = 16_777_215",
        &["expected_requests_per_minute: times requests_ratio", "less than 16777215"],
    );
    refused("[daemon]\nmax_flows = 0", &["a.toml:2: daemon.max_flows: is 0"]);
}

#[test]
fn resolvers_are_typical_endpoints_for_dns() {
    let config = parse_one(
        "[profiles.p]\ntypical = ['10.0.0.0/8']\nresolvers = ['10.0.0.53', '2001:db8::53', '10.0.0.53']",
    )
    .unwrap();
    let profile = &config.profiles["p"];
    assert_eq!(profile.compile().typical_endpoints, 3, "one prefix and two resolvers");
    let prefixes = profile.typical_prefixes().unwrap();
    assert_eq!(prefixes.len(), 3);
    let admits = |prefix: &TypicalPrefix, protocol, port| prefix.rules.admit(protocol, 0, port);
    let v6 = prefixes.iter().find(|prefix| prefix.prefix_len == 128 && !admits(prefix, 6, 80)).unwrap();
    assert!(admits(v6, 17, 53) && admits(v6, 6, 53) && !admits(v6, 17, 54));
    refused(
        "[profiles.p]\nresolvers = ['10.0.0.0/8']",
        &["a.toml:2: profiles.p.resolvers: \"10.0.0.0/8\" is not an address"],
    );
}

#[test]
fn capacities_are_checked_by_name() {
    refused(
        "[daemon]\nmax_profiles = 1\n[profiles.p]",
        &["a.toml:2: daemon.max_profiles: is 1, but profiles need 2"],
    );
    refused(
        "[daemon]\nmax_typical_prefixes = 1\n[profiles.p]\ntypical = [\"10.0.0.0/8\", \"11.0.0.0/8\"]",
        &["a.toml:2: daemon.max_typical_prefixes"],
    );
    refused(
        "[daemon]\nmax_agents = 1\n[agents.a]\ninterface='e1'\n[agents.b]\ninterface='e2'",
        &["a.toml:2: daemon.max_agents: is 1, but agents need 2"],
    );
}

#[test]
fn too_many_rules_name_the_profile_and_the_prefix() {
    let ports: Vec<String> = (0..16).map(|port| (port * 2).to_string()).collect();
    let text =
        format!("[profiles.p]\ntypical = [{{ to = \"10.0.0.0/8\", ports = \"{}\" }}]", ports.join(","));
    refused(&text, &["a.toml:2: profiles.p.typical: 10.0.0.0/8 needs 16 rules"]);
}

#[test]
fn types_and_syntax_are_problems_too() {
    refused("[agents]\na = 1", &["a.toml:2: agents.a: is an integer; allowed: a table"]);
    refused(
        "[daemon]\nmax_agents = 99999999999999999999",
        &["a.toml:2: daemon.max_agents: is 99999999999999999999"],
    );
    refused(
        "[agents.a]\ntags = []",
        &["a.toml:1: agents.a: has no attachment; allowed: interface, unit or cgroup, address with link"],
    );
    for tag in ["", "a\\n", &"x".repeat(65)] {
        let text = format!("[agents.a]\ninterface = \"e1\"\ntags = [\"ok\", \"{tag}\"]");
        refused(&text, &["a.toml:3: agents.a.tags: ", "is no tag; allowed: a list of words"]);
    }
    refused("[agents.\"a b\"]\ninterface = \"e1\"", &["a.toml:1: agents.a b: is no name"]);
    refused(
        "[breaker]\ncooldown = \"20m\"",
        &["a.toml:2: breaker.cooldown: cooldown is longer than max_cooldown"],
    );
    refused(
        "[agents.a]\ninterface = \"e1\"\nnewcomer = \"open\"",
        &["a.toml:3: agents.a.newcomer: needs a pattern"],
    );
    refused(
        "[profiles.p]\ntypical = [{ to = \"10.0.0.1\", ports = \"1\", protocol = \"icmp\" }]",
        &["a.toml:2: profiles.p.typical[0].ports", "only tcp, udp and any have ports"],
    );
    let found = problems("[daemon]\ninterval = \n[daemno]\n");
    assert!(found[0].starts_with("a.toml:2: "), "{found:#?}");
    assert!(found.iter().any(|line| line.contains("perhaps `daemon` is meant")), "{found:#?}");
}

#[test]
fn drop_ins_add_and_override_but_never_redefine() {
    let base =
        source("a.toml", "[daemon]\ninterval = \"1s\"\nmax_agents = 2\n[agents.a]\ninterface = \"e1\"");
    let more = source("conf.d/1.toml", "[daemon]\ninterval = \"2s\"\n[agents.b]\ninterface = \"e2\"");
    let config = parse(&[base.clone(), more]).unwrap();
    assert_eq!((config.daemon.interval_ns, config.daemon.max_agents), (2_000_000_000, 2));
    assert_eq!(config.agents.len(), 2);
    let again = source("conf.d/2.toml", "\n[agents.a]\ninterface = \"e3\"");
    let errors = parse(&[base, again]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "conf.d/2.toml:2: agents.a: is already defined at a.toml:4; allowed: one definition over all files"
    );
}

#[test]
fn files_are_found_beside_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agentsec.toml");
    assert!(load(&path).unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, "[daemon]\nmax_agents = 1").unwrap();
    std::fs::create_dir(directory.path().join("conf.d")).unwrap();
    for (name, agents) in [("20.toml", 3), ("10.toml", 2), (".30.toml", 4), ("40.txt", 5)] {
        std::fs::write(
            directory.path().join("conf.d").join(name),
            format!("[daemon]\nmax_agents = {agents}"),
        )
        .unwrap();
    }
    assert_eq!(load(&path).unwrap().daemon.max_agents, 3);
}
