//! Admin as the authority on volume tokens.

use flexfs_wire::settings::{ValidateAnswer, ValidateRequest};

use super::http::{AdminError, AdminHttp};

/// Says what a volume token permits. Blocking; called from the validation threads only.
pub(crate) trait Authority: Send + Sync + 'static {
    /// The verdict on a token.
    ///
    /// # Errors
    /// [`AdminError`] when there is none: the token may be good or bad.
    fn validate(&self, request: &ValidateRequest) -> Result<ValidateAnswer, AdminError>;
}

/// The real one, over HTTP.
#[derive(Debug)]
pub(crate) struct Admin {
    http: std::sync::Arc<AdminHttp>,
}

impl Admin {
    /// Asks through `http`.
    #[must_use]
    pub(crate) fn new(http: std::sync::Arc<AdminHttp>) -> Self {
        Self { http }
    }
}

impl Authority for Admin {
    fn validate(&self, request: &ValidateRequest) -> Result<ValidateAnswer, AdminError> {
        self.http.post_json("/v1/tokens/validate", request)
    }
}
