//! Errors of the REST API: RFC 9457 problem documents that name the field at fault.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// A problem document. Texts never repeat a token or a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Name of the class of problem: `urn:flexfs:problem:...`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The HTTP status again.
    status: u16,
    /// The HTTP status in words.
    title: &'static str,
    /// What is wrong and what to do.
    detail: String,
    /// Field of the body or parameter of the query at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { kind, status: status.as_u16(), title, detail: detail.into(), field: None }
    }

    /// A field whose value cannot be taken.
    pub(crate) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::BAD_REQUEST, "urn:flexfs:problem:invalid-field", detail);
        Self { field: Some(field.into()), ..problem }
    }

    /// A request that cannot be read at all.
    pub(crate) fn request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:flexfs:problem:invalid-request", detail)
    }

    /// A bearer token that is not accepted.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "urn:flexfs:problem:unauthorized", detail)
    }

    /// What the account's role does not permit.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:flexfs:problem:forbidden", detail)
    }

    /// Nothing of that name.
    pub(crate) fn missing(noun: &str, key: &str) -> Self {
        let key: String = key.chars().take(80).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "urn:flexfs:problem:not-found",
            format!("there is no {noun} {key:?}"),
        )
    }

    /// No such path.
    pub(crate) fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "urn:flexfs:problem:not-found",
            "no such path; /v1/openapi.json lists them",
        )
    }

    /// The path is there, but not with this method.
    pub(crate) fn no_such_method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "urn:flexfs:problem:method",
            "this path does not take this method; /v1/openapi.json lists which it takes",
        )
    }

    /// The state of the tables forbids it.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:flexfs:problem:conflict", detail)
    }

    /// Too slow, or too much at once.
    pub(crate) fn timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "urn:flexfs:problem:timeout",
            "the request took too long; try again",
        )
    }

    /// A body over the limit.
    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "urn:flexfs:problem:too-large",
            format!("the body is longer than {limit_bytes} bytes"),
        )
    }

    /// Our own fault: the cause goes to the log, not to the client.
    pub(crate) fn internal(doing: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "{doing} failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "urn:flexfs:problem:internal",
            format!("{doing} failed; admin's log has the cause"),
        )
    }

    /// Names the field of a problem that arose below it.
    pub(crate) fn in_field(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    /// The sentence for the person.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"flexfs\""));
        }
        response
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ffi;
        let Some(code) = error.sqlite_error().map(|e| e.extended_code) else {
            return Self::internal("reading the tables", &error);
        };
        match code {
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY => {
                Self::conflict("it is still in use: other objects refer to it; remove those first")
            }
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
                let field = if error.to_string().contains("name") { "name" } else { "code" };
                Self::conflict("that name is taken; choose another").in_field(field)
            }
            _ => Self::internal("using the tables", &error),
        }
    }
}
