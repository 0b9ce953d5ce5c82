//! Snapshots and recovery over HTTP. The slow work is done by jobs in threads of their own; what is asked here reads
//! a file at most, and does that beside the daemon's loop.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{RequestError, RequestErrorCode};
use super::routes::{Agent, Answer, Caller, JsonBody, Shared, invalid};
use super::views::recovery::{Places, PlanView, Restored, SnapshotList};
use crate::clock;
use crate::recovery::jobs::Job;
use crate::recovery::store::HANDED_BYTES;
use crate::recovery::tiers::Freshness;
use crate::recovery::{Failure, Kind, Service};

/// The most that a caller may take to send it.
const STATE_PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/v1/agents/{id}/snapshots", get(list).post(create))
        .route("/v1/agents/{id}/snapshots/{snapshot}/verify", post(verify))
        .route("/v1/agents/{id}/snapshots/{snapshot}/restored", post(restored))
        .route("/v1/agents/{id}/recover", post(recover))
        .route("/v1/agents/{id}/state", put(hand_over).layer(DefaultBodyLimit::max(HANDED_BYTES)))
        .route("/v1/jobs/{job}", get(job))
        .route("/v1/snapshots", get(tiers))
}

/// Asks recovery in a thread that may wait for a disk.
async fn ask<T: Send + 'static>(
    shared: Shared,
    question: impl FnOnce(&Service) -> Result<T, Failure> + Send + 'static,
) -> Result<T, RequestError> {
    let unavailable = || RequestError::new(RequestErrorCode::Unavailable, "recovery has not started");
    let service = shared.recovery.ok_or_else(unavailable)?;
    let asked = tokio::task::spawn_blocking(move || question(&service)).await;
    asked.map_err(|_| unavailable())?.map_err(|failure| error_of(&failure))
}

fn error_of(failure: &Failure) -> RequestError {
    let code = match failure.kind {
        Kind::NoSnapshot => RequestErrorCode::NotFound,
        Kind::Locked | Kind::Source | Kind::Target | Kind::Key => RequestErrorCode::Refused,
        _ => RequestErrorCode::Unavailable,
    };
    RequestError::new(code, failure.message.clone())
}

async fn list(State(shared): State<Shared>, Agent(agent): Agent) -> Answer<SnapshotList> {
    ask(shared, move |service| {
        let offers = service.snapshots(&agent)?;
        let since = service.suspicious_since(&agent);
        Ok(Json(SnapshotList::new(agent, &offers, since.as_ref(), clock::now().wall_ns)))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

async fn create(
    State(shared): State<Shared>,
    Agent(agent): Agent,
    Caller(by): Caller,
    JsonBody(Nothing {}): JsonBody<Nothing>,
) -> Answer<Job> {
    ask(shared, move |service| service.create(&agent, &by, false).map(Json)).await
}

async fn verify(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    Caller(by): Caller,
    JsonBody(Nothing {}): JsonBody<Nothing>,
) -> Answer<Job> {
    let Path((agent, snapshot)) = path.map_err(|error| invalid(error.body_text()))?;
    super::request::check_agent(&agent)?;
    ask(shared, move |service| service.verify(&agent, &snapshot, &by).map(Json)).await
}

/// Somebody has restored a snapshot beside the daemon, and says so.
async fn restored(
    State(shared): State<Shared>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    Caller(by): Caller,
    JsonBody(what): JsonBody<Restored>,
) -> Answer<Value> {
    let Path((agent, snapshot)) = path.map_err(|error| invalid(error.body_text()))?;
    super::request::check_agent(&agent)?;
    ask(shared, move |service| {
        service.tell_restored(&agent, &snapshot, &by, &what)?;
        Ok(Json(json!({ "agent": agent, "snapshot": snapshot })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecoverBody {
    snapshot: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

async fn recover(
    State(shared): State<Shared>,
    Agent(agent): Agent,
    Caller(by): Caller,
    JsonBody(body): JsonBody<RecoverBody>,
) -> Answer<Value> {
    let wanted = body.snapshot;
    ask(shared, move |service| {
        if body.dry_run {
            let plan = service.plan(&agent, wanted.as_deref())?;
            let since = service.suspicious_since(&agent).map(|since| since.shown());
            return Ok(Json(json!(PlanView { agent, plan, suspicious_since: since })));
        }
        service.recover(&agent, wanted.as_deref(), &by, false).map(|job| Json(json!(job)))
    })
    .await
}

async fn hand_over(
    State(shared): State<Shared>,
    Agent(agent): Agent,
    request: axum::extract::Request,
) -> Answer<Value> {
    let read = tokio::time::timeout(STATE_PATIENCE, Bytes::from_request(request, &())).await;
    let read = read.map_err(|_| invalid("the state did not arrive in time"))?;
    let state = read.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => invalid(format!(
            "more than {} MiB cannot be handed over: let a command tell the state, or give it a directory",
            HANDED_BYTES >> 20
        )),
        _ => invalid(error.body_text()),
    })?;
    ask(shared, move |service| {
        service.hand_over(&agent, &state)?;
        Ok(Json(json!({ "agent": agent, "bytes": state.len() })))
    })
    .await
}

async fn job(State(shared): State<Shared>, Path(number): Path<u64>) -> Answer<Job> {
    ask(shared, move |service| {
        let unknown = || Failure::new(Kind::NoSnapshot, format!("there is no job {number}"));
        service.job(number).map(Json).ok_or_else(unknown)
    })
    .await
}

/// How new every agent's snapshots are; of nobody's when that cannot be told, which is no reason to tell nothing else.
pub(super) async fn freshness(shared: Shared) -> BTreeMap<String, Freshness> {
    ask(shared, Service::freshness).await.unwrap_or_default()
}

async fn tiers(State(shared): State<Shared>) -> Answer<Places> {
    ask(shared, |service| Ok(Json(Places { agents: service.tiers()? }))).await
}
