//! Real servers that answer by a script, and clients that measure what they see.
//!
//! Where [`traffic`](crate::traffic) makes amounts, this makes conversations: every answer, its delay and its cut into
//! segments is what the test wrote down, and the client says what it saw and when. Everything runs inside a
//! given namespace, ends with its time or when it is dropped, and takes no more than so many connections at once.
//!
//! * [`service`]: listening, and a thread for each connection; [`stream`]: a connection that knows where its segments end.
//! * [`http_server`] answers HTTP/1.1 by a script of [`http_answer`]s; [`http_probe`] asks and measures.
//! * [`http2`]: the same in the clear with prior knowledge, gRPC's own statuses among it.
//! * [`delays`]: how long a slow server takes for each answer. (A server that reads and never answers is a
//!   [`TcpSink`](crate::traffic::tcp::TcpSink), or an HTTP one with [`Answer::never`](http_answer::Answer::never).)
//! * [`ports`] refuse and reset, and a client counts how it was turned away.
//! * [`tls`] servers require a certificate of an authority in [`certificates`], and clients tell which alert they got.
//! * [`dns`]: a responder that is slow, loses answers or knows no name, and a client.
//! * [`statistics`]: what a client's measurements come to.
//! * [`logins`] that other protocols refuse in the clear, as [`dialogue`]s.
//! * [`hostile`]: a server that has no kernel to keep it honest, and segments and datagrams of somebody in between.
//! * [`segments`]: what a capture saw, as TCP segments.

pub mod certificates;
pub mod delays;
pub mod dialogue;
pub mod dns;
pub mod hostile;
pub mod http2;
pub mod http_answer;
pub mod http_probe;
pub mod http_server;
pub mod logins;
pub mod ports;
pub mod segments;
pub mod service;
pub mod statistics;
pub mod stream;
pub mod tls;
