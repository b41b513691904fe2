//! HTTP to admin over TLS that is verified against the CA pin of the meta token.
//!
//! ureq's own TLS connector knows certificate stores, not pins; so the chain ends in a connector of ours.

use std::fmt;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::creds::Creds;
use flexfs_wire::tls::{self, ALPN_REST, Role};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

/// Time for one whole call to admin.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// Time to reach admin.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence after which the event stream counts as broken; admin sends a line every 2 s.
const STREAM_SILENCE_MAX: Duration = Duration::from_secs(7);
/// Largest answer read, bytes: a certificate chain or a volume's settings are a few KiB.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Why admin gave no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection, no answer in time, or the wrong server at its address.
    #[error("admin at {addr} cannot be reached: {cause}")]
    Unreachable {
        /// Its address.
        addr: String,
        /// What happened.
        cause: String,
    },
    /// Admin answered that it would not.
    #[error("admin refused (HTTP {status}): {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Admin's words.
        text: String,
    },
    /// Not what this version of the protocol says.
    #[error("admin's answer to {path} cannot be read: {cause}; are both of the same version?")]
    Malformed {
        /// What was asked.
        path: &'static str,
        /// What is wrong.
        cause: String,
    },
}

/// A client of admin's REST API with a bearer token.
pub(crate) struct AdminHttp {
    addr: String,
    calls: Agent,
    streams: Agent,
    bearer: Zeroizing<String>,
}

impl fmt::Debug for AdminHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminHttp").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl AdminHttp {
    /// A client that speaks as the holder of `creds`.
    #[must_use]
    pub(crate) fn new(creds: &Creds) -> Self {
        let tls = tls::client_config(creds.token.ca_pin, Role::Admin, ALPN_REST);
        let text = creds.token.to_text();
        let mut bearer = Zeroizing::new(String::with_capacity("Bearer ".len() + text.len()));
        bearer.push_str("Bearer ");
        bearer.push_str(&text);
        Self {
            addr: creds.admin_addr.to_string(),
            calls: agent(&tls, Some(CALL_TIMEOUT), None),
            streams: agent(&tls, None, Some(STREAM_SILENCE_MAX)),
            bearer,
        }
    }

    /// Admin's address, for texts.
    #[must_use]
    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    /// Posts JSON, reads JSON.
    ///
    /// # Errors
    /// [`AdminError`].
    pub(crate) fn post_json<R: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<R, AdminError> {
        // Holds a token's text: wiped when it has been sent.
        let body = Zeroizing::new(
            serde_json::to_vec(body)
                .map_err(|error| AdminError::Malformed { path, cause: error.to_string() })?,
        );
        let answer = self.post(path, "application/json", &body)?;
        serde_json::from_str(&answer)
            .map_err(|error| AdminError::Malformed { path, cause: error.to_string() })
    }

    /// Posts bytes, reads text.
    ///
    /// # Errors
    /// [`AdminError`].
    pub(crate) fn post(&self, path: &'static str, kind: &str, body: &[u8]) -> Result<String, AdminError> {
        let sent = self
            .calls
            .post(format!("https://{}{path}", self.addr))
            .header("authorization", self.bearer.as_str())
            .header("content-type", kind)
            .send(body);
        self.accept(path, sent)?
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_string()
            .map_err(|error| AdminError::Malformed { path, cause: error.to_string() })
    }

    /// Opens a standing stream of lines.
    ///
    /// # Errors
    /// [`AdminError`]; reads of the stream fail after seven silent seconds.
    pub(crate) fn stream(&self, path: &'static str) -> Result<Box<dyn BufRead + Send>, AdminError> {
        let sent = self
            .streams
            .get(format!("https://{}{path}", self.addr))
            .header("authorization", self.bearer.as_str())
            .call();
        let body = self.accept(path, sent)?;
        Ok(Box::new(BufReader::new(body.into_with_config().limit(u64::MAX).reader())))
    }

    fn accept(
        &self,
        path: &'static str,
        sent: Result<ureq::http::Response<Body>, ureq::Error>,
    ) -> Result<Body, AdminError> {
        let response = sent
            .map_err(|error| AdminError::Unreachable { addr: self.addr.clone(), cause: explain(&error) })?;
        let status = response.status();
        let body = response.into_body();
        if status.is_success() {
            return Ok(body);
        }
        let mut text = String::new();
        body.into_reader()
            .take(4096)
            .read_to_string(&mut text)
            .map_err(|error| AdminError::Malformed { path, cause: error.to_string() })?;
        Err(AdminError::Refused { status: status.as_u16(), text: problem_text(&text) })
    }
}

/// The person's part of a problem+json body; the body itself when it is none.
fn problem_text(body: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let field = |name| value.as_ref()?.get(name)?.as_str().map(str::to_owned);
    field("detail").or_else(|| field("title")).unwrap_or_else(|| body.trim().to_owned())
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(io) => tls::explain(io),
        ureq::Error::Rustls(tls) => tls::explain(tls),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        other => other.to_string(),
    }
}

fn agent(tls: &Arc<ClientConfig>, whole: Option<Duration>, silence: Option<Duration>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .user_agent(concat!("meta.flexfs/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(whole)
        .timeout_per_read(silence)
        .max_redirects(0)
        .build();
    let connector = ().chain(TcpConnector::default()).chain(Pinned { tls: tls.clone() });
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Wraps a TCP transport in TLS verified for the admin role.
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
        let mut connection = ClientConnection::new(self.tls.clone(), Role::Admin.server_name())?;
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
    fn problems_speak_to_people() {
        assert_eq!(problem_text(r#"{"title":"Bad","detail":"name is taken"}"#), "name is taken");
        assert_eq!(problem_text(r#"{"title":"Bad"}"#), "Bad");
        assert_eq!(problem_text(" plain \n"), "plain");
    }
}
