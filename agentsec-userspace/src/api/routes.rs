//! What each path answers.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::event_log::{EventQuery, events};
use super::metrics;
use super::request::{
    Operation, OperationReply, ReloadReply, Reply, Reported, Request, RequestError, RequestErrorCode, Whom,
    check_agent,
};
use super::time::Timestamp;
use super::views::{AgentList, EndpointList, Explanation, RecorderView, Status};
use crate::core::interaction::Report;
use crate::record::evidence::EvidenceSource;
use crate::record::index::Files;
use crate::record::query::{NotAnEndpoint, event_type};
use crate::recorder::pcapng_of;
use crate::recovery::Service;

/// The most that the loop may take to answer, and a caller to send its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that an answer waits for events that are being written.
const SETTLING: Duration = Duration::from_secs(1);
const BODY_BYTES: usize = 16 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) log: EvidenceSource,
    pub(super) index: Files,
    pub(super) recovery: Option<Service>,
}

/// Who is calling, as an extension of every request that passed the peer check.
#[derive(Clone)]
pub(super) struct Caller(pub(super) String);

pub(super) type Answer<T> = Result<Json<T>, RequestError>;

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/agents", get(agents))
        .route("/v1/agents/{id}/endpoints", get(endpoints))
        .route("/v1/agents/{id}/explain", get(explain))
        .route("/v1/agents/{id}/recorder", get(recorder))
        .route("/v1/agents/{id}/recorder.pcapng", get(recorder_file))
        .route("/v1/agents/{id}/interactions", post(report))
        .route("/v1/agents/{id}/quarantine", post(quarantine::<Agent>))
        .route("/v1/agents/{id}/release", post(release::<Agent>))
        .route("/v1/agents/{id}/shadow", post(shadow::<Agent>))
        .route("/v1/agents/{id}/exempt", post(exempt::<Agent>))
        .route("/v1/tags/{tag}/quarantine", post(quarantine::<Tag>))
        .route("/v1/tags/{tag}/release", post(release::<Tag>))
        .route("/v1/tags/{tag}/shadow", post(shadow::<Tag>))
        .route("/v1/tags/{tag}/exempt", post(exempt::<Tag>))
        .route("/v1/release-all", post(release_all))
        .route("/v1/reload", post(reload))
        .route("/v1/events", get(read_events))
        .route("/metrics", get(read_metrics))
        .fallback(no_page)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .merge(super::recovery::router())
        .with_state(shared)
}

async fn no_page() -> RequestError {
    RequestError::new(RequestErrorCode::NotFound, "there is no such page")
}

async fn no_method() -> Response {
    let error = RequestError::new(RequestErrorCode::Invalid, "this page does not take this method");
    let mut response = error.into_response();
    *response.status_mut() = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

impl Shared {
    /// Sends a request to the loop and waits for its answer.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(request(reply)).await.ok()?;
            answer.await.ok()
        };
        let unavailable = |why| RequestError::new(RequestErrorCode::Unavailable, why);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.ok_or_else(|| unavailable("the daemon is shutting down")),
            Err(_) => Err(unavailable("the daemon is too busy to answer; what was asked may still be done")),
        }
    }

    async fn try_ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Answer<T> {
        self.ask(request).await?.map(Json)
    }

    /// Waits until what an answer speaks of is in the log; whether it is on a disk then. A log that hangs is not waited for.
    async fn settle(&self) -> bool {
        let (reply, settled) = oneshot::channel();
        let asked = async {
            self.requests.send(Request::Settle { reply }).await.ok()?;
            settled.await.ok()
        };
        tokio::time::timeout(SETTLING, asked).await.ok().flatten().unwrap_or_default()
    }

    async fn operate(&self, operation: Operation, Caller(by): Caller) -> Answer<OperationReply> {
        operation.check()?;
        let answer = self.try_ask(|reply| Request::Operate { operation, by, reply }).await;
        self.settle().await;
        answer
    }
}

async fn status(State(shared): State<Shared>) -> Answer<Status> {
    let status = shared.ask(|reply| Request::Status { reply }).await;
    shared.settle().await;
    status.map(Json)
}

async fn agents(State(shared): State<Shared>) -> Answer<AgentList> {
    let status = shared.ask(|reply| Request::Status { reply }).await?;
    Ok(Json(AgentList::from(&status)))
}

async fn endpoints(State(shared): State<Shared>, Agent(agent): Agent) -> Answer<EndpointList> {
    shared.try_ask(|reply| Request::Endpoints { agent, reply }).await
}

async fn explain(State(shared): State<Shared>, Agent(agent): Agent) -> Answer<Explanation> {
    shared.try_ask(|reply| Request::Explain { agent, reply }).await
}

async fn recorder(State(shared): State<Shared>, Agent(agent): Agent) -> Answer<RecorderView> {
    let recorded = shared.ask(|reply| Request::Recorder { agent, reply }).await??;
    Ok(Json(RecorderView::from(&recorded)))
}

/// The same packets as a file for analysers.
async fn recorder_file(State(shared): State<Shared>, Agent(agent): Agent) -> Result<Response, RequestError> {
    let recorded = shared.ask(|reply| Request::Recorder { agent, reply }).await??;
    let file = pcapng_of(&recorded.recording, &recorded.about)
        .map_err(|error| RequestError::new(RequestErrorCode::Unavailable, format!("{error:#}")))?;
    Ok(([(CONTENT_TYPE, "application/x-pcapng")], file).into_response())
}

async fn report(
    State(shared): State<Shared>,
    Agent(agent): Agent,
    Caller(by): Caller,
    JsonBody(report): JsonBody<Report>,
) -> Answer<Reported> {
    let report = Box::new(report);
    let Json(reported) = shared.try_ask(|reply| Request::Report { agent, report, by, reply }).await?;
    let waits = !shared.settle().await;
    Ok(Json(Reported { waits, ..reported }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuarantineBody {
    reason: String,
    #[serde(default)]
    hold: bool,
}

async fn quarantine<W: Into<Whom>>(
    State(shared): State<Shared>,
    whom: W,
    caller: Caller,
    JsonBody(body): JsonBody<QuarantineBody>,
) -> Answer<OperationReply> {
    shared
        .operate(Operation::Quarantine { whom: whom.into(), reason: body.reason, hold: body.hold }, caller)
        .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseBody {
    #[serde(default)]
    force: bool,
}

async fn release<W: Into<Whom>>(
    State(shared): State<Shared>,
    whom: W,
    caller: Caller,
    JsonBody(body): JsonBody<ReleaseBody>,
) -> Answer<OperationReply> {
    shared.operate(Operation::Release { whom: whom.into(), force: body.force }, caller).await
}

async fn release_all(
    State(shared): State<Shared>,
    caller: Caller,
    JsonBody(body): JsonBody<ReleaseBody>,
) -> Answer<OperationReply> {
    shared.operate(Operation::Release { whom: Whom::All, force: body.force }, caller).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchBody {
    #[serde(default = "yes")]
    on: bool,
}

const fn yes() -> bool {
    true
}

async fn shadow<W: Into<Whom>>(
    State(shared): State<Shared>,
    whom: W,
    caller: Caller,
    JsonBody(body): JsonBody<SwitchBody>,
) -> Answer<OperationReply> {
    shared.operate(Operation::Shadow { whom: whom.into(), on: body.on }, caller).await
}

async fn exempt<W: Into<Whom>>(
    State(shared): State<Shared>,
    whom: W,
    caller: Caller,
    JsonBody(body): JsonBody<SwitchBody>,
) -> Answer<OperationReply> {
    shared.operate(Operation::Exempt { whom: whom.into(), on: body.on }, caller).await
}

async fn reload(
    State(shared): State<Shared>,
    Caller(by): Caller,
    JsonBody(ReloadBody {}): JsonBody<ReloadBody>,
) -> Answer<ReloadReply> {
    let answer = shared.try_ask(|reply| Request::Reload { by, reply }).await;
    shared.settle().await;
    answer
}

/// There is nothing to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {}

/// `type` may name several, with commas between.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventParameters {
    #[serde(default)]
    follow: bool,
    since: Option<String>,
    until: Option<String>,
    agent: Option<String>,
    #[serde(rename = "type")]
    kinds: Option<String>,
    correlation: Option<String>,
    endpoint: Option<String>,
    limit: Option<usize>,
}

async fn read_events(
    State(shared): State<Shared>,
    parameters: Result<Query<EventParameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, RequestError> {
    let Query(wanted) = parameters.map_err(|error| invalid(error.body_text()))?;
    let time = |name, text: Option<String>| {
        let time = text.map(|text| text.parse::<Timestamp>()).transpose();
        time.map_err(|error| invalid(format!("{name}: {error}")))
    };
    let endpoint = wanted.endpoint.map(|text| text.parse()).transpose();
    let types =
        wanted.kinds.iter().flat_map(|kinds| kinds.split(',')).map(event_type).collect::<Result<_, _>>();
    let query = EventQuery {
        follow: wanted.follow,
        since: time("since", wanted.since)?,
        until: time("until", wanted.until)?,
        agent: wanted.agent,
        types: types.map_err(|error| invalid(format!("type: {error}")))?,
        correlation: wanted.correlation,
        endpoint: endpoint.map_err(|error: NotAnEndpoint| invalid(format!("endpoint: {error}")))?,
        limit: wanted.limit,
    };
    query.check().map_err(invalid)?;
    shared.settle().await;
    let body = Body::from_stream(events(shared.log, shared.index, query));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

async fn read_metrics(State(shared): State<Shared>) -> Result<Response, RequestError> {
    let status = shared.ask(|reply| Request::Status { reply }).await?;
    let snapshots = super::recovery::freshness(shared).await;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&status, &snapshots)).into_response())
}

pub(super) fn invalid(message: impl Into<String>) -> RequestError {
    RequestError::new(RequestErrorCode::Invalid, message)
}

/// The agent that the path names.
pub(super) struct Agent(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Agent {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|error| invalid(error.body_text()))?;
        check_agent(&name)?;
        Ok(Self(name))
    }
}

/// The tag that the path names.
struct Tag(String);

impl<S: Send + Sync> FromRequestParts<S> for Tag {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(tag)| Self(tag)).map_err(|error| invalid(error.body_text()))
    }
}

impl From<Agent> for Whom {
    fn from(Agent(id): Agent) -> Self {
        Self::Agent(id)
    }
}

impl From<Tag> for Whom {
    fn from(Tag(tag): Tag) -> Self {
        Self::Tag(tag)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RequestError> {
        let unknown = || RequestError::new(RequestErrorCode::Forbidden, "the caller is unknown");
        parts.extensions.get::<Self>().cloned().ok_or_else(unknown)
    }
}

/// A JSON body; an empty one is an empty object.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = RequestError;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, RequestError> {
        let read = tokio::time::timeout(PATIENCE, Bytes::from_request(request, state)).await;
        let read = read.map_err(|_| invalid("the body did not arrive in time"))?;
        let body = read.map_err(|error| invalid(error.body_text()))?;
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(text).map(Self).map_err(|error| invalid(format!("the body: {error}")))
    }
}
