//! Why a command failed, with its exit code and what to do about it.

use std::io;

use serde::Serialize;

use super::exit::Exit;
use crate::api::client::ClientError;
use crate::api::{RequestError, RequestErrorCode};

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CliError {
    /// Whoever read the output has had enough, as `head` has. Not an error to anybody.
    ReaderGone,
    /// Anything else.
    Failed(Failure),
}

/// What is told.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    #[serde(serialize_with = "as_code")]
    pub(super) exit: Exit,
    pub(super) message: String,
    pub(super) remedy: Option<String>,
}

fn as_code<S: serde::Serializer>(exit: &Exit, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(exit.code())
}

impl CliError {
    pub(super) fn new(exit: Exit, message: impl Into<String>, remedy: Option<&str>) -> Self {
        Self::Failed(Failure { exit, message: message.into(), remedy: remedy.map(str::to_owned) })
    }

    pub(super) fn failure(message: impl Into<String>) -> Self {
        Self::new(Exit::Failure, message, None)
    }

    pub(super) fn configuration(error: &anyhow::Error) -> Self {
        Self::new(Exit::Config, format!("{error:#}"), None)
    }
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::failure(format!("{error:#}"))
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::failure(format!("writing the output: {error}")),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let (exit, remedy) = match &error {
            ClientError::NotRunning { .. } => (
                Exit::NotRunning,
                Some(
                    "start it (`systemctl start agentsec`, or `agentsec run`), or name its directory with --run-dir",
                ),
            ),
            ClientError::PermissionDenied { .. } => {
                (Exit::Refused, Some("run this as root or as a member of the group `agentsec`"))
            }
            ClientError::Api(error) => (exit_of(error), None),
            ClientError::Protocol(_) => (Exit::Failure, None),
        };
        Self::new(exit, error.to_string(), remedy)
    }
}

const fn exit_of(error: &RequestError) -> Exit {
    match error.code {
        RequestErrorCode::NotFound => Exit::NotFound,
        RequestErrorCode::Refused | RequestErrorCode::Forbidden => Exit::Refused,
        RequestErrorCode::Invalid => Exit::Usage,
        RequestErrorCode::Config => Exit::Config,
        RequestErrorCode::Unavailable => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(error: ClientError) -> Exit {
        match CliError::from(error) {
            CliError::Failed(failure) => failure.exit,
            CliError::ReaderGone => panic!("not an error"),
        }
    }

    #[test]
    fn every_answer_has_its_exit_code() {
        assert_eq!(exit(ClientError::NotRunning { socket: "s".into() }), Exit::NotRunning);
        assert_eq!(exit(ClientError::PermissionDenied { socket: "s".into() }), Exit::Refused);
        assert_eq!(exit(ClientError::Protocol("x".into())), Exit::Failure);
        for (code, expected) in [
            (RequestErrorCode::NotFound, Exit::NotFound),
            (RequestErrorCode::Refused, Exit::Refused),
            (RequestErrorCode::Forbidden, Exit::Refused),
            (RequestErrorCode::Invalid, Exit::Usage),
            (RequestErrorCode::Config, Exit::Config),
            (RequestErrorCode::Unavailable, Exit::Failure),
        ] {
            assert_eq!(exit(ClientError::Api(RequestError::new(code, "x"))), expected);
        }
    }

    #[test]
    fn a_closed_pipe_is_nobodys_error() {
        assert!(matches!(CliError::from(io::Error::from(io::ErrorKind::BrokenPipe)), CliError::ReaderGone));
    }
}
