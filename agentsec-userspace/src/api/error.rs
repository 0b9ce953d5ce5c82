//! Errors as HTTP answers: `{"error":{"code","message"}}`.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::request::{RequestError, RequestErrorCode};

/// The body of every answer that is no success.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: RequestError,
}

pub(super) const fn http_status(code: RequestErrorCode) -> StatusCode {
    match code {
        RequestErrorCode::NotFound => StatusCode::NOT_FOUND,
        RequestErrorCode::Refused => StatusCode::CONFLICT,
        RequestErrorCode::Forbidden => StatusCode::FORBIDDEN,
        RequestErrorCode::Invalid => StatusCode::BAD_REQUEST,
        RequestErrorCode::Config => StatusCode::UNPROCESSABLE_ENTITY,
        RequestErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        (http_status(self.code), axum::Json(ErrorBody { error: self })).into_response()
    }
}
