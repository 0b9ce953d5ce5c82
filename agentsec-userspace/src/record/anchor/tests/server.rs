//! Servers on loopback: one that answers by a script, and a witness that keeps to its specification.

use super::verifier::{Hash, is_beginning, open_checkpoint};
use crate::record::anchor::cosign::tests::{line, witness};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// What came in: path, headers, body.
pub type Seen = (String, HeaderMap, String);

type Answer = Box<dyn FnMut(&Seen) -> Response + Send>;

type Shared = (Arc<Mutex<Vec<Seen>>>, Arc<Mutex<Answer>>);

/// A server until it is dropped.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers every request by `answer`.
    pub fn start(answer: impl FnMut(&Seen) -> Response + Send + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let shared: Shared = (Arc::clone(&seen), Arc::new(Mutex::new(Box::new(answer))));
        let handle = |State((seen, answer)): State<Shared>, uri: Uri, headers: HeaderMap, body: String| async move {
            let one = (uri.path().to_owned(), headers, body);
            let response = answer.lock().unwrap()(&one);
            seen.lock().unwrap().push(one);
            response
        };
        let router = Router::new().fallback(handle).with_state(shared);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            super::runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { address, seen, stop: Some(stop), thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/log", self.address)
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What a witness knows.
pub struct Witness {
    pub name: String,
    pub secret: SigningKey,
    /// The logs that it knows, by origin: key, size and root of what it cosigned last.
    pub logs: BTreeMap<String, (String, u64, Hash)>,
    pub clock: u64,
}

impl Witness {
    /// A witness of the log with this key, and its own key's text.
    pub fn of(log: &str) -> (Self, String) {
        let (secret, key) = witness("witness.example/w1", 9);
        let origin = log.split('+').next().unwrap().to_owned();
        let logs = BTreeMap::from([(origin, (log.to_owned(), 0, [0; 32]))]);
        (Self { name: "witness.example/w1".into(), secret, logs, clock: 1_700_000_000 }, key)
    }

    /// Answers `add-checkpoint` as the specification says.
    pub fn answer(&mut self, (path, _, body): &Seen) -> Response {
        if path != "/log/add-checkpoint" {
            return (StatusCode::BAD_REQUEST, "no such path").into_response();
        }
        let Some(request) = Request::parse(body) else {
            return (StatusCode::BAD_REQUEST, "not a request").into_response();
        };
        let origin = request.note.lines().next().unwrap_or_default();
        let Some((key, known, known_root)) = self.logs.get_mut(origin) else {
            return (StatusCode::NOT_FOUND, "an unknown log").into_response();
        };
        let Some((_, size, root)) = open_checkpoint(request.note, key) else {
            return (StatusCode::FORBIDDEN, "an unknown key").into_response();
        };
        if request.old > size {
            return (StatusCode::BAD_REQUEST, "backwards").into_response();
        }
        let conflict = |size: u64| {
            (StatusCode::CONFLICT, [("content-type", "text/x.tlog.size")], format!("{size}\n"))
                .into_response()
        };
        if request.old != *known || (*known == size && size > 0 && *known_root != root) {
            return conflict(*known);
        }
        if !is_beginning(*known, known_root, size, &root, &request.proof) {
            return (StatusCode::UNPROCESSABLE_ENTITY, "not consistent").into_response();
        }
        (*known, *known_root) = (size, root);
        self.clock += 1;
        let text = &request.note[..=request.note.find("\n\n").unwrap()];
        let other = SigningKey::from_bytes(&[77; 32]);
        let lines =
            line("stranger.example", &other, text, 5) + &line(&self.name, &self.secret, text, self.clock);
        lines.into_response()
    }
}

/// The parts of a request.
struct Request<'a> {
    old: u64,
    proof: Vec<Hash>,
    note: &'a str,
}

impl<'a> Request<'a> {
    fn parse(body: &'a str) -> Option<Self> {
        let (head, note) = body.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let digits = lines.next()?.strip_prefix("old ")?;
        let old: u64 = digits.parse().ok()?;
        let proof: Vec<Hash> =
            lines.map(|one| STANDARD.decode(one).ok()?.try_into().ok()).collect::<Option<_>>()?;
        (old.to_string() == digits && proof.len() <= 63).then_some(Self { old, proof, note })
    }
}
