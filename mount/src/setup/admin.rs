//! One question to admin: where is the volume of this token?
//!
//! ureq's own TLS knows certificate stores, not pins; so its chain ends in a connector of ours, which runs rustls with the
//! CA pin of the token and accepts nothing but the cluster's admin, whatever address was dialled.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::creds::Creds;
use flexfs_wire::settings::ForToken;
use flexfs_wire::tls::{self, ALPN_REST, Role};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::Agent;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport,
    TransportAdapter,
};
use zeroize::Zeroizing;

/// Time for the whole question.
const CALL_MAX: Duration = Duration::from_secs(15);
/// Time to reach admin.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Largest answer read, bytes; settings of a volume are below 4 KiB.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Why admin gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection, no answer in time, or the wrong server at its address.
    #[error("admin at {addr} cannot be reached: {cause}")]
    Unreachable {
        /// Its address.
        addr: String,
        /// What happened.
        cause: String,
    },
    /// Admin said no.
    #[error("{0}")]
    Refused(String),
    /// Not what this version of the protocol says.
    #[error("admin's answer cannot be read ({0}); are both programs of the same version?")]
    Malformed(String),
}

/// Asks for the volume that the token opens.
///
/// # Errors
/// [`AdminError`]; its text is for the person.
pub fn for_token(creds: &Creds) -> Result<ForToken, AdminError> {
    let tls = tls::client_config(creds.token.ca_pin, Role::Admin, ALPN_REST);
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .user_agent(concat!("mount.flexfs/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_global(Some(CALL_MAX))
        .build();
    let connector = ().chain(TcpConnector::default()).chain(Pinned { tls });
    let agent = Agent::with_parts(config, connector, DefaultResolver::default());
    let mut bearer = Zeroizing::new(String::with_capacity(160));
    bearer.push_str("Bearer ");
    bearer.push_str(&creds.token.to_text());
    let addr = creds.admin_addr.to_string();
    let response = agent
        .get(format!("https://{addr}/v1/volumes/for-token"))
        .header("authorization", bearer.as_str())
        .call()
        .map_err(|error| AdminError::Unreachable { addr, cause: explain(&error) })?;
    let accepted = response.status().is_success();
    let text = response
        .into_body()
        .into_with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .map_err(|error| AdminError::Malformed(error.to_string()))?;
    if !accepted {
        return Err(AdminError::Refused(problem_text(&text)));
    }
    serde_json::from_str(&text).map_err(|error| AdminError::Malformed(error.to_string()))
}

/// The person's part of a problem+json body; the body itself when it is none.
fn problem_text(body: &str) -> String {
    let value: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let field = |name| value.as_ref()?.get(name)?.as_str().map(str::to_owned);
    field("detail")
        .or_else(|| field("title"))
        .unwrap_or_else(|| format!("admin refused: {}", body.trim().chars().take(200).collect::<String>()))
}

fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(io) => tls::explain(io),
        ureq::Error::Rustls(tls) => tls::explain(tls),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        other => other.to_string(),
    }
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
        self.stream.flush()?;
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
    fn problems_are_told_in_admins_words() {
        assert_eq!(
            problem_text(r#"{"title":"Unauthorized","detail":"the token was revoked"}"#),
            "the token was revoked"
        );
        assert_eq!(problem_text(r#"{"title":"Unauthorized"}"#), "Unauthorized");
        assert_eq!(problem_text("<html>\n"), "admin refused: <html>");
    }
}
