//! Client of admin's REST API: blocking HTTP over TLS that is verified by the pin of the token it presents.
//!
//! How it works, for whoever needs the same elsewhere: ureq resolves and connects to the real address, and in place
//! of its own TLS a connector of ours runs rustls with `wire::tls::client_config(pin, Role::Admin, ..)`. That config
//! verifies the role `admin.flexfs.internal` against the CA the token pins, whatever address is dialled; so there
//! is no host name to match, no system trust store, and no switch that turns verification off.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::creds::Creds;
use flexfs_wire::tls::{self, ALPN_REST, Role};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Map, Value};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

/// Time for one call.
const CALL_TIME: Duration = Duration::from_secs(15);
/// Time to reach admin.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Largest answer, bytes: a page of a thousand rows with notes.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Rows of a page.
const PAGE: &str = "500";

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestError {
    /// No connection, or not to the right server.
    #[error("admin at {addr} cannot be reached: {cause}")]
    Unreachable {
        /// Its address.
        addr: String,
        /// What happened.
        cause: String,
    },
    /// Admin said no.
    #[error("{}{detail}", field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default())]
    Refused {
        /// HTTP status.
        status: u16,
        /// Field at fault.
        field: Option<String>,
        /// Admin's words.
        detail: String,
    },
    /// Not what this program understands.
    #[error("admin's answer cannot be read ({0}): are both programs of the same version?")]
    Malformed(String),
}

/// A client for one admin and one account.
pub(crate) struct Rest {
    agent: Agent,
    addr: String,
    bearer: Zeroizing<String>,
}

impl Rest {
    /// A client that presents the token of `creds`.
    pub(crate) fn new(creds: &Creds) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("configure.flexfs/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_global(Some(CALL_TIME))
            .build();
        let tls = tls::client_config(creds.token.ca_pin, Role::Admin, ALPN_REST);
        let connector = ().chain(TcpConnector::default()).chain(Pinned { tls });
        let mut bearer = Zeroizing::new(String::with_capacity(160));
        bearer.push_str("Bearer ");
        bearer.push_str(&creds.token.to_text());
        Self {
            agent: Agent::with_parts(config, connector, DefaultResolver::default()),
            addr: creds.admin_addr.to_string(),
            bearer,
        }
    }

    /// `GET` of one object.
    pub(crate) fn get(&self, path: &str) -> Result<Value, RestError> {
        read(self.call(Method::GET, path, None)?)
    }

    /// `GET` of a whole list, page by page.
    pub(crate) fn list(&self, path: &str, filters: &[(String, String)]) -> Result<Vec<Value>, RestError> {
        let mut rows = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut query = format!("{path}?limit={PAGE}");
            let next = after.take().map(|after| ("after".to_owned(), after));
            for (key, value) in filters.iter().chain(next.as_ref()) {
                query.push_str(&format!("&{}={}", encode(key), encode(value)));
            }
            let response = self.call(Method::GET, &query, None)?;
            let next = response.headers().get("x-flexfs-next").and_then(|value| value.to_str().ok());
            after = next.map(str::to_owned);
            match read(response)? {
                Value::Array(page) => rows.extend(page),
                _ => return Err(RestError::Malformed("not a list".to_owned())),
            }
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    /// `POST`; the answer is the new object.
    pub(crate) fn post(&self, path: &str, body: Map<String, Value>) -> Result<Value, RestError> {
        read(self.call(Method::POST, path, Some(body))?)
    }

    /// `PUT` of the given fields.
    pub(crate) fn put(&self, path: &str, body: Map<String, Value>) -> Result<(), RestError> {
        self.call(Method::PUT, path, Some(body)).map(drop)
    }

    /// `DELETE`.
    pub(crate) fn delete(&self, path: &str) -> Result<(), RestError> {
        self.call(Method::DELETE, path, None).map(drop)
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Map<String, Value>>,
    ) -> Result<Response<Body>, RestError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.addr))
            .header("authorization", self.bearer.as_str())
            .header("content-type", "application/json");
        let malformed = |error: ureq::http::Error| RestError::Malformed(error.to_string());
        let sent = match body {
            Some(body) => self.agent.run(request.body(Value::Object(body).to_string()).map_err(malformed)?),
            None => self.agent.run(request.body(()).map_err(malformed)?),
        };
        let response =
            sent.map_err(|error| RestError::Unreachable { addr: self.addr.clone(), cause: explain(&error) })?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response)) }
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// One part of a path or query, percent-encoded (RFC 3986, 2.3: unreserved characters stay).
pub(crate) fn encode(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn read(response: Response<Body>) -> Result<Value, RestError> {
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    let malformed = |error: &dyn fmt::Display| RestError::Malformed(error.to_string());
    let text = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    // May hold a new token.
    let text = Zeroizing::new(text.map_err(|error| malformed(&error))?);
    serde_json::from_str(&text).map_err(|error| malformed(&error.classify_text()))
}

/// The class of a JSON error without a piece of the text, which may hold a token.
trait ClassifyText {
    fn classify_text(&self) -> String;
}

impl ClassifyText for serde_json::Error {
    fn classify_text(&self) -> String {
        format!("not JSON, line {} column {}", self.line(), self.column())
    }
}

fn refusal(response: Response<Body>) -> RestError {
    let status = response.status();
    let text = response.into_body().into_with_config().limit(64 * 1024).read_to_string().unwrap_or_default();
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let part = |key| problem.get(key).and_then(Value::as_str).map(str::to_owned);
    RestError::Refused {
        status: status.as_u16(),
        field: part("field"),
        detail: part("detail").unwrap_or_else(|| format!("admin answered {status}")),
    }
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens there (is admin.flexfs running, is adminAddr right?)".to_owned()
        }
        ureq::Error::Io(io) => tls::explain(io),
        ureq::Error::Rustls(error) => tls::explain(error),
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        other => other.to_string(),
    }
}

/// TLS for admin's role on top of whatever connection comes before.
struct Pinned {
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

impl<In: Transport> Connector<In> for Pinned {
    type Out = Either<In, PinnedTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        let mut connection = ClientConnection::new(Arc::clone(&self.tls), Role::Admin.server_name())?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(PinnedTransport { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

struct PinnedTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for PinnedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedTransport")
    }
}

impl Transport for PinnedTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let output = &self.buffers.output()[..amount];
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let input = self.buffers.input_append_buf();
        let amount = self.stream.read(input)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding() {
        assert_eq!(encode("aB3-._~"), "aB3-._~");
        assert_eq!(encode("a b/ü&="), "a%20b%2F%C3%BC%26%3D");
    }

    #[test]
    fn refusals_name_the_field() {
        let error =
            RestError::Refused { status: 400, field: Some("name".into()), detail: "is needed".into() };
        assert_eq!(error.to_string(), "name: is needed");
        let error = RestError::Refused { status: 404, field: None, detail: "there is none".into() };
        assert_eq!(error.to_string(), "there is none");
    }
}
