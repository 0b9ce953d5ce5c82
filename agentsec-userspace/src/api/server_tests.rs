//! Server and client, over a real socket, with a task that plays the daemon's loop.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::record::evidence::{EvidenceLog, EvidenceSource};
use crate::record::index::Files;

use super::*;
use crate::api::client::{Client, ClientError, escaped};
use crate::api::request::{Operation, OperationOutcome, OperationReply, Recorded, Reported, Whom};
use crate::api::views::tests::one_agent;
use crate::api::views::{AgentList, EndpointList, Explanation, RecorderView, Status};
use crate::recorder::{About, Recording};

struct Fixture {
    run: tempfile::TempDir,
    server: Server,
    client: Client,
    /// What the fake loop was asked, other than reads.
    seen: mpsc::UnboundedReceiver<String>,
}

fn fixture(guard: Guard) -> Fixture {
    let run = tempfile::tempdir().unwrap();
    let (requests, inbox) = mpsc::channel(16);
    let (seen_by_loop, seen) = mpsc::unbounded_channel();
    tokio::spawn(fake_loop(inbox, seen_by_loop));
    let server = Server::spawn(ServerOptions {
        socket: run.path().join(SOCKET_NAME),
        log: EvidenceSource::in_state(run.path()),
        index: Files::in_state(run.path()),
        guard,
        requests,
        recovery: None,
    });
    let client = Client::new(run.path());
    Fixture { run, server: server.unwrap(), client, seen }
}

fn open_fixture() -> Fixture {
    fixture(Guard::of_this_process().unwrap())
}

async fn fake_loop(mut inbox: mpsc::Receiver<Request>, seen: mpsc::UnboundedSender<String>) {
    while let Some(request) = inbox.recv().await {
        match request {
            Request::Status { reply } => reply.send(one_agent()).unwrap(),
            Request::Settle { reply } => reply.send(true).unwrap(),
            Request::Endpoints { agent, reply } => {
                reply.send(Ok(EndpointList { agent, ..EndpointList::default() })).unwrap();
            }
            Request::Explain { agent, reply } if agent == "silent" => drop(reply),
            Request::Explain { agent, reply } => reply.send(Err(RequestError::no_agent(&agent))).unwrap(),
            Request::Recorder { agent, reply } => {
                let recording = Recording { agent, ..Recording::default() };
                let recorded = Recorded { recording, about: About::default(), kept: None, orders: None };
                reply.send(Ok(recorded)).unwrap();
            }
            Request::Operate { operation, by, reply } => {
                let agent = match operation.whom() {
                    Whom::Agent(agent) => agent.clone(),
                    Whom::Tag(tag) => format!("#{tag}"),
                    Whom::All => "*".to_owned(),
                };
                seen.send(format!("{by}: {operation:?}")).unwrap();
                let answer = match operation {
                    Operation::Exempt { .. } => Err(RequestError::new(RequestErrorCode::Refused, "never")),
                    _ => {
                        let agents = vec![OperationOutcome { agent, ..Default::default() }];
                        Ok(OperationReply { agents, ..OperationReply::default() })
                    }
                };
                reply.send(answer).unwrap();
            }
            Request::Report { agent, report, by, reply } => {
                seen.send(format!("{agent} {} by {by}", report.id)).unwrap();
                reply.send(Ok(Reported { agent, correlation_id: report.id, waits: false })).unwrap();
            }
            Request::Reload { by, reply } => {
                seen.send(format!("{by}: reload")).unwrap();
                reply.send(Err(RequestError::new(RequestErrorCode::Config, "a.toml:1: a\nb"))).unwrap();
            }
            Request::Refused(refusal) => {
                seen.send(format!("refused {}: {}", refusal.count, refusal.reason)).unwrap()
            }
        }
    }
}

fn code(error: ClientError) -> RequestErrorCode {
    match error {
        ClientError::Api(error) => error.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn reads_come_from_the_loop() {
    let fixture = open_fixture();
    assert_eq!(fixture.client.get::<Status>("/v1/status").await.unwrap(), one_agent());
    let agents: AgentList = fixture.client.get("/v1/agents").await.unwrap();
    assert_eq!(agents, AgentList::from(&one_agent()));
    let odd = "a/b ü";
    let path = format!("/v1/agents/{}/endpoints", escaped(odd));
    assert_eq!(fixture.client.get::<EndpointList>(&path).await.unwrap().agent, odd);
    let view: RecorderView = fixture.client.get("/v1/agents/a/recorder").await.unwrap();
    assert_eq!((view.agent.as_str(), view.one_in, view.packets.len()), ("a", None, 0));
    let mut file = fixture.client.stream("/v1/agents/a/recorder.pcapng").await.unwrap();
    assert!(file.next().await.unwrap().unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    fixture.server.stop().await;
}

#[tokio::test]
async fn errors_carry_their_code() {
    let Fixture { client, .. } = &open_fixture();
    let explain = async |agent: &str| {
        client.get::<Explanation>(&format!("/v1/agents/{}/explain", escaped(agent))).await.unwrap_err()
    };
    assert_eq!(code(explain("nobody").await), RequestErrorCode::NotFound);
    assert_eq!(code(explain("silent").await), RequestErrorCode::Unavailable);
    assert_eq!(code(explain(&"x".repeat(65)).await), RequestErrorCode::Invalid);
    assert_eq!(code(client.get::<Value>("/v2").await.unwrap_err()), RequestErrorCode::NotFound);
    assert_eq!(code(client.get::<Value>("/v1/release-all").await.unwrap_err()), RequestErrorCode::Invalid);
    let reload = client.post::<Value>("/v1/reload", &json!({})).await.unwrap_err();
    assert_eq!((reload.to_string().lines().count(), code(reload)), (2, RequestErrorCode::Config));
    let exempt = client.post::<Value>("/v1/agents/a/exempt", &json!({})).await.unwrap_err();
    assert_eq!(code(exempt), RequestErrorCode::Refused);
}

#[tokio::test]
async fn operations_reach_the_loop_with_their_operator() {
    let mut fixture = open_fixture();
    let quarantine = |body: Value| {
        let client = fixture.client.clone();
        async move { client.post::<OperationReply>("/v1/agents/crawler/quarantine", &body).await }
    };
    let done = quarantine(json!({"reason": "smells", "hold": true})).await.unwrap();
    assert_eq!(done.agents[0].agent, "crawler");
    let seen = fixture.seen.recv().await.unwrap();
    assert!(seen.contains(&format!("(pid {})", std::process::id())), "{seen}");
    assert!(seen.contains(r#"reason: "smells", hold: true"#), "{seen}");
    for body in [json!({}), json!({"reason": ""}), json!({"reason": "a", "holdd": true}), json!([1])] {
        assert_eq!(code(quarantine(body).await.unwrap_err()), RequestErrorCode::Invalid);
    }
    let big = json!({"reason": "x".repeat(1 << 20)});
    assert!(quarantine(big).await.is_err(), "a body is bounded");
    let all: OperationReply = fixture.client.post("/v1/release-all", &json!({"force": true})).await.unwrap();
    assert_eq!(all.agents[0].agent, "*");
    assert!(fixture.seen.recv().await.unwrap().contains("whom: All, force: true"));
    let path = format!("/v1/tags/{}/release", escaped("a/b ü"));
    let tagged: OperationReply = fixture.client.post(&path, &json!({})).await.unwrap();
    assert_eq!(tagged.agents[0].agent, "#a/b ü");
    let long = format!("/v1/tags/{}/shadow", "x".repeat(65));
    assert_eq!(
        code(fixture.client.post::<Value>(&long, &json!({})).await.unwrap_err()),
        RequestErrorCode::Invalid
    );
}

#[tokio::test]
async fn an_agent_is_told_no_and_reported_once_a_second() {
    let guard = Guard::of_this_process().unwrap().refusing_agents(Arc::new(|_| Some("crawler".into())));
    let mut fixture = fixture(guard);
    for _ in 0..20 {
        let error = fixture.client.get::<Status>("/v1/status").await.unwrap_err();
        assert!(error.to_string().contains("belongs to the agent `crawler`"), "{error}");
        assert_eq!(code(error), RequestErrorCode::Forbidden);
    }
    let first = fixture.seen.recv().await.unwrap();
    assert!(first.starts_with("refused 1: the caller belongs"), "{first}");
    tokio::time::sleep(REPORT_INTERVAL).await;
    let _ = fixture.client.get::<Status>("/v1/status").await;
    assert!(fixture.seen.recv().await.unwrap().starts_with("refused 20: "));
}

#[tokio::test]
async fn callers_that_say_nothing_do_not_keep_others_out() {
    let fixture = open_fixture();
    let socket = fixture.run.path().join(SOCKET_NAME);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    let busy = fixture.client.get::<Status>("/v1/status").await.unwrap_err();
    assert_eq!(code(busy), RequestErrorCode::Unavailable);
    drop(silent);
    let mut tries = 0;
    while fixture.client.get::<Status>("/v1/status").await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        tries += 1;
        assert!(tries < 200, "closed connections are freed");
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let fixture = open_fixture();
    let mut slow = UnixStream::connect(fixture.run.path().join(SOCKET_NAME)).await.unwrap();
    slow.write_all(b"GET /v1/status HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(HEADER_PATIENCE * 2, slow.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the server hangs up");
}

#[tokio::test]
async fn a_report_goes_to_the_loop_and_unknown_fields_are_refused() {
    let mut fixture = open_fixture();
    let path = "/v1/agents/crawler/interactions";
    let reported: Reported = fixture.client.post(path, &json!({ "id": "job-7" })).await.unwrap();
    assert_eq!((reported.agent.as_str(), reported.correlation_id.as_str()), ("crawler", "job-7"));
    assert!(fixture.seen.recv().await.unwrap().starts_with("crawler job-7 by uid "));
    for body in [json!({}), json!({ "id": "a", "more": 1 })] {
        let refused = fixture.client.post::<Reported>(path, &body).await.unwrap_err();
        assert_eq!(code(refused), RequestErrorCode::Invalid);
    }
}

#[tokio::test]
async fn events_stream_and_end_with_the_server() {
    let fixture = open_fixture();
    let mut log = EvidenceLog::open(&fixture.run.path().join("log"), "host").unwrap().log;
    log.append(&["{\"event_type\":\"LOSS\",\"agent_id\":\"a b\"}", "{\"event_type\":\"ALERT\"}"], true)
        .unwrap();
    let all = collect(&fixture.client, "/v1/events").await.unwrap();
    assert_eq!(all.lines().count(), 2);
    let chosen = format!("/v1/events?agent={}&type=loss,DROPS", escaped("a b"));
    assert_eq!(collect(&fixture.client, &chosen).await.unwrap().lines().count(), 1);
    assert_eq!(
        code(collect(&fixture.client, "/v1/events?since=x").await.unwrap_err()),
        RequestErrorCode::Invalid
    );
    assert_eq!(
        code(collect(&fixture.client, "/v1/events?x=1").await.unwrap_err()),
        RequestErrorCode::Invalid
    );
    assert_eq!(
        code(collect(&fixture.client, "/v1/events?type=LOSS,BOGUS").await.unwrap_err()),
        RequestErrorCode::Invalid
    );
    let mut following = fixture.client.stream("/v1/events?follow=true&limit=1").await.unwrap();
    assert_eq!(following.next().await.unwrap().unwrap(), "{\"event_type\":\"ALERT\"}\n");
    fixture.server.stop().await;
    // Cut off or ended; either way the follower learns of it.
    while let Ok(Some(_)) = following.next().await {}
    assert!(!Path::new(&fixture.run.path().join(SOCKET_NAME)).exists());
    let gone = fixture.client.get::<Status>("/v1/status").await.unwrap_err();
    assert!(matches!(gone, ClientError::NotRunning { .. }), "{gone}");
}

async fn collect(client: &Client, path: &str) -> Result<String, ClientError> {
    let mut pieces = client.stream(path).await?;
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(all).unwrap())
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let fixture = open_fixture();
    let page = collect(&fixture.client, "/metrics").await.unwrap();
    assert!(page.contains("agentsec_agent_risk{agent=\"crawler\"} 0.700"));
}

const CLIENT_RUN_DIR: &str = "AGENTSEC_TEST_RUN_DIR";

/// Run by [`even_root_is_refused_from_another_namespace`], in that namespace.
#[tokio::test]
#[ignore = "a helper of another test"]
async fn client_in_a_namespace() {
    let run_dir = std::env::var_os(CLIENT_RUN_DIR).unwrap();
    match Client::new(Path::new(&run_dir)).get::<Status>("/v1/status").await {
        Ok(_) => println!("answered"),
        Err(error) => println!("refused: {error}"),
    }
}

/// What a client says that runs behind `unshare` with these flags.
async fn client_behind(flags: &[&str], run_dir: &Path) -> String {
    let helper = ["--exact", "--ignored", "--nocapture", "api::server::tests::client_in_a_namespace"];
    let ran = tokio::process::Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe().unwrap())
        .args(helper)
        .env(CLIENT_RUN_DIR, run_dir)
        .output();
    let ran = ran.await.expect("util-linux has unshare");
    let said = String::from_utf8(ran.stdout).unwrap();
    let spoke = said.contains("answered") || said.contains("refused");
    assert!(spoke, "unshare {flags:?} needs root: run `cargo xtask test` as root");
    said
}

#[tokio::test]
async fn even_root_is_refused_from_another_namespace() {
    let fixture = open_fixture();
    for (flags, expected) in [
        (&["--mount"][..], "answered"),
        (&["--net"], "in another network namespace"),
        (&["--user", "--map-root-user"], "in another user namespace"),
    ] {
        let said = client_behind(flags, fixture.run.path()).await;
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
}
