//! What operators and scripts see.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use agentsec::record::verify;
use agentsec_tests::daemon::{Config, Daemon, Launch};
use agentsec_tests::lab::Lab;
use agentsec_tests::scene::{LONG, NAMES, Scene, config};
use agentsec_tests::traffic::http::HttpServer;
use agentsec_tests::traffic::udp::UdpReceiver;
use agentsec_tests::wait;
use anyhow::{Context, Result};
use serde_json::Value;

const ANY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How a command ended, and all that it said.
fn ends(daemon: &Daemon, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = daemon.cli(arguments)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn object(daemon: &Daemon, arguments: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&daemon.cli_ok(arguments)?)?)
}

#[test]
fn the_status_has_the_fields_of_the_contract() -> Result<()> {
    let scene = Scene::routed(2, &config(2))?;
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let status = scene.daemon.status()?;
    let fields =
        ["id", "state", "mode", "risk", "contributions", "epoch", "outbound", "inbound", "attachments"];
    for agent in status["agents"].as_array().context("a list")? {
        for field in fields {
            assert!(!agent[field].is_null(), "{field} of {agent}");
        }
        for way in ["outbound", "inbound"] {
            for field in ["bytes", "packets", "dropped_bytes", "dropped_packets"] {
                assert!(agent[way][field].is_u64(), "{way}.{field} of {agent}");
            }
        }
        assert!(agent.get("tripped").is_some(), "{agent}");
    }
    for field in ["by", "at", "reason"] {
        assert!(status["agents"][0]["tripped"][field].is_string(), "{field}");
    }
    assert_eq!(status["agents"][1]["tripped"], Value::Null);
    assert_eq!(status["daemon"]["pid"].as_u64(), scene.daemon.pid().map(u64::from));
    assert_eq!(status["daemon"]["agents_by_state"]["OPEN"], 1);
    for verb in ["status", "agents"] {
        let shown = scene.daemon.cli_ok(&[verb])?;
        assert!(shown.contains(NAMES[0]) && shown.contains("OPEN"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "no colours into a pipe: {shown}");
    }
    Ok(())
}

#[test]
fn an_explanation_names_the_limit_the_packet_and_the_setting() -> Result<()> {
    let config = config(1).set("profiles.default.limits.max_volume", "20kB");
    let scene = Scene::routed(1, &config)?;
    let _receiver = UdpReceiver::start(&scene.lab.world().namespace, (ANY4, 4242), LONG)?;
    scene.shoot(0, 4242, 500)?;
    scene.daemon.wait_for_state(NAMES[0], "OPEN", LONG)?;
    let told = object(&scene.daemon, &["explain", NAMES[0], "--json"])?;
    assert_eq!((&told["state"], &told["tripped"]["by"]), (&"OPEN".into(), &"kernel".into()));
    let packet = &told["packet"];
    assert_eq!(packet["remote"], scene.lab.world().v4.to_string());
    let what = (&packet["remote_port"], &packet["protocol"], &packet["direction"], &packet["bytes"]);
    assert_eq!(what, (&4242.into(), &"udp".into(), &"outbound".into(), &142.into()));
    let settings = told["settings"].to_string();
    assert!(settings.contains("profiles.default.limits.max_volume"), "{settings}");
    let shown = scene.daemon.cli_ok(&["explain", NAMES[0]])?;
    for part in ["OPEN", "max_volume", "4242", "142"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    Ok(())
}

#[test]
fn endpoints_are_whom_an_agent_talks_to() -> Result<()> {
    let config = config(1).set("profiles.default.typical", vec!["10.78.0.0/24"]);
    let scene = Scene::routed(1, &config)?;
    let server = HttpServer::start(&scene.lab.world().namespace, (ANY4, 0), LONG)?;
    assert!(scene.is_served(0, &server));
    let stranger = std::net::SocketAddr::new(scene.lab.crowd_v4(5).into(), 53);
    agentsec_tests::scene::shoot(scene.lab.agent(0), stranger, 3)?;
    let told = object(&scene.daemon, &["endpoints", NAMES[0], "--json"])?;
    let all = told["endpoints"].as_array().context("a list")?;
    let find = |port: u16| all.iter().find(|one| one["port"] == port).context("an endpoint").cloned();
    let web = find(server.address().port())?;
    assert_eq!((&web["typical"], &web["protocol"]), (&true.into(), &"tcp".into()));
    let dns = find(53)?;
    assert_eq!((&dns["typical"], &dns["remote"]), (&false.into(), &stranger.ip().to_string().into()));
    let strange = object(&scene.daemon, &["endpoints", NAMES[0], "--untypical", "--json"])?;
    assert_eq!(strange["endpoints"].as_array().map(Vec::len), Some(1), "{strange}");
    let chosen = ["--protocol", "udp", "--port", "53", "--remote", &stranger.ip().to_string(), "--opened"];
    let chosen = object(&scene.daemon, &[&["endpoints", NAMES[0], "--json"], &chosen[..]].concat())?;
    assert_eq!(chosen["endpoints"], strange["endpoints"]);
    scene.wait_for_event("the new endpoint", |event| event["event_type"] == "ENDPOINT_NEW")?;
    Ok(())
}

#[test]
fn events_are_followed_as_they_happen() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let arguments = ["events", "--follow", "--json", "--type", "CONTAINMENT_ACTION"];
    let mut follower = scene.daemon.command(&arguments).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(follower.stdout.take().context("a pipe")?);
    let (to_test, from_follower) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        lines.lines().map_while(Result::ok).for_each(|line| drop(to_test.send(line)));
    });
    scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", "test"])?;
    let line = from_follower.recv_timeout(LONG).context("no event was streamed");
    follower.kill()?;
    follower.wait()?;
    assert!(reader.join().is_ok());
    let event = verify(&line?).map_err(|flaw| anyhow::anyhow!("{flaw}"))?;
    assert_eq!((event.agent_id.as_deref(), &event.event_data["to"]), (Some(NAMES[0]), &"OPEN".into()));
    Ok(())
}

#[test]
fn exit_codes_tell_scripts_what_is_wrong() -> Result<()> {
    let mut scene = Scene::routed(1, &config(1))?;
    for arguments in [
        &["explain", "nobody"][..],
        &["endpoints", "nobody"],
        &["quarantine", "nobody", "--reason", "test"],
        &["release", "nobody"],
        &["shadow", "nobody"],
    ] {
        let (code, said) = ends(&scene.daemon, arguments)?;
        assert_eq!(code, Some(4), "{arguments:?}: {said}");
        assert!(said.contains("nobody"), "{said}");
    }
    assert_eq!(ends(&scene.daemon, &["quarantine", NAMES[0]])?.0, Some(2), "a reason is needed");
    scene.daemon.terminate()?;
    for arguments in [&["status"][..], &["agents", "--json"], &["release", NAMES[0]], &["events"]] {
        let (code, said) = ends(&scene.daemon, arguments)?;
        assert_eq!(code, Some(3), "{arguments:?}: {said}");
    }
    Ok(())
}

#[test]
fn all_agents_of_a_tag_are_contained_and_released_at_once() -> Result<()> {
    let tags = |config: Config, agent: usize, tags: &[&str]| {
        config.set(&format!("agents.{}.tags", NAMES[agent]), tags.to_vec())
    };
    let config = tags(tags(tags(config(3), 0, &["batch"]), 1, &["batch", "eu"]), 2, &["eu"]);
    let scene = Scene::routed(3, &config.set("breaker.never_isolate", vec![NAMES[1]]))?;
    let (code, said) = ends(&scene.daemon, &["quarantine", "--tag", "batch", "--reason", "test", "--hold"])?;
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("is now OPEN") && said.contains("never_isolate"), "{said}");
    let states = || -> Result<Vec<Value>> {
        let status = scene.daemon.status()?;
        Ok((0..3).map(|agent| status["agents"][agent]["state"].clone()).collect())
    };
    assert_eq!(states()?, ["OPEN", "CLOSED", "CLOSED"]);
    assert_eq!(scene.daemon.status()?["agents"][1]["tags"], serde_json::json!(["batch", "eu"]));
    assert!(scene.daemon.cli_ok(&["agents"])?.contains("batch eu"));
    let event = scene.wait_for_event("the command", |event| event["event_data"]["tag"] == "batch")?;
    assert_eq!(event["event_data"]["agents"], 2, "{event}");
    let (code, said) = ends(&scene.daemon, &["quarantine", "--tag", "bacth", "--reason", "test"])?;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("`batch`, `eu`"), "{said}");
    let released = object(&scene.daemon, &["release", "--tag", "batch", "--force", "--json"])?;
    assert_eq!(released["agents"].as_array().map(Vec::len), Some(2), "{released}");
    assert_eq!(states()?, ["CLOSED", "CLOSED", "CLOSED"]);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_error() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    for _ in 0..10 {
        scene.daemon.cli_ok(&["quarantine", NAMES[0], "--reason", &"long ".repeat(200)])?;
        scene.daemon.cli_ok(&["release", NAMES[0], "--force"])?;
    }
    let mut events = scene.daemon.command(&["events", "--json"]);
    let mut events = events.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Reads one byte and closes, as `head -c 1` does.
    events.stdout.take().context("a pipe")?.read_exact(&mut [0])?;
    let output = events.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
    Ok(())
}

#[test]
fn every_mistake_in_a_configuration_has_its_place() -> Result<()> {
    let lab = Lab::routed(1)?;
    let daemon = Launch::new(lab.host(), &Config::new()).prepare()?;
    let path = daemon.paths().config();
    let file = path.display().to_string();
    for (text, line, parts) in [
        ("[daemon]\nintervall = \"1s\"\n", 2, &["intervall", "interval"][..]),
        ("\n\n[agents.a]\ninterface = \"a\"\nprofile = \"none\"\n", 5, &["none", "default"]),
        ("[agents.a]\ntags = []\n", 1, &["interface", "no attachment"]),
        ("[profiles.p]\ntypical = [\"10.0.0.0/33\"]\n", 2, &["10.0.0.0/33"]),
        ("[breaker]\ncooldown = 5\n", 2, &["cooldown"]),
        ("[breaker\n", 1, &[]),
    ] {
        std::fs::write(&path, text)?;
        for verb in ["check-config", "run"] {
            let (code, said) = ends(&daemon, &[verb, "--config", &file])?;
            assert_eq!(code, Some(6), "{text:?}: {said}");
            assert!(said.contains(&format!("{file}:{line}")), "line {line} in {said}");
            for part in parts {
                assert!(said.contains(part), "{part} in {said}");
            }
        }
    }
    std::fs::write(&path, config(2).to_string())?;
    let told = object(&daemon, &["check-config", "--config", &file, "--json"])?;
    assert_eq!(told["agents"], serde_json::json!([NAMES[0], NAMES[1]]));
    let nothing = wait::until("a socket", std::time::Duration::ZERO, || {
        daemon.paths().run().join("agentsec.sock").exists().then_some(())
    });
    assert!(nothing.is_err(), "checking starts nothing");
    Ok(())
}

#[test]
fn more_agents_than_there_is_room_for_are_refused_by_name() -> Result<()> {
    let lab = Lab::routed(2)?;
    let config = config(2).set("daemon.max_agents", 1);
    let daemon = Launch::new(lab.host(), &config).prepare()?;
    let file = daemon.paths().config().display().to_string();
    let (code, said) = ends(&daemon, &["run", "--config", &file])?;
    assert_ne!(code, Some(0));
    assert!(said.contains("max_agents"), "{said}");
    Ok(())
}

#[test]
fn the_doctor_says_what_this_machine_has() -> Result<()> {
    let scene = Scene::routed(1, &config(1))?;
    let (code, said) = ends(&scene.daemon, &["doctor", "--json"])?;
    let told: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    assert_eq!(code, Some(0), "a daemon runs here, so nothing can be missing: {said}");
    let mine = told["interfaces"].as_array().context("a list")?;
    let mine = mine.iter().find(|one| one["interface"] == "agent-0").context("agent-0")?;
    assert_eq!(mine["tcx_ingress"][0]["ours"], true, "{mine}");
    Ok(())
}
