//! Admin's standing stream: revoked tokens, changed settings. Bound: one second while admin is reachable; when it is not,
//! running sessions go on and are checked again by the snapshot that begins the next stream.

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Duration;

use flexfs_wire::settings::Event;

use crate::auth::{AdminError, AdminHttp, Pool};
use crate::clock;
use crate::volume::{ToVolume, ValidTokens, Volumes};

/// First pause before the stream is opened anew.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Longest line taken, bytes: a snapshot of a hundred thousand tokens, all with limits.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Follows the stream on a thread of its own, as long as the process lives.
///
/// # Errors
/// No thread.
pub(crate) fn follow(http: Arc<AdminHttp>, pool: Pool, volumes: Arc<Volumes>) -> std::io::Result<()> {
    let follower = Follower { http, pool, volumes };
    std::thread::Builder::new().name("events".to_owned()).spawn(move || follower.run())?;
    Ok(())
}

struct Follower {
    http: Arc<AdminHttp>,
    pool: Pool,
    volumes: Arc<Volumes>,
}

impl Follower {
    fn run(&self) {
        let connected = metrics::gauge!("flexfs_meta_admin_connected");
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            connected.set(0.0);
            let started = clock::now();
            match self.http.stream("/v1/events") {
                Ok(mut lines) => {
                    connected.set(1.0);
                    if told {
                        tracing::info!(admin = self.http.addr(), "admin is back");
                        told = false;
                    }
                    let cause = self.read(&mut *lines);
                    tracing::warn!(
                        admin = self.http.addr(),
                        cause,
                        "the event stream from admin broke; connecting anew"
                    );
                }
                Err(error) if !told => {
                    told = true;
                    self.warn(&error);
                }
                Err(_) => {}
            }
            // A stream that lived for a while earns a quick return.
            if clock::now().saturating_duration_since(started) > 2 * PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn warn(&self, error: &AdminError) {
        tracing::warn!(
            %error,
            "no event stream from admin: running sessions go on, new ones may have to wait, revoked tokens are \
             noticed when it is back"
        );
    }

    /// Reads until the stream ends; why it did.
    fn read(&self, lines: &mut dyn std::io::BufRead) -> String {
        let mut line = Vec::new();
        loop {
            line.clear();
            match std::io::Read::take(&mut *lines, LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => return "admin closed it".to_owned(),
                Ok(_) if line.last() != Some(&b'\n') => {
                    return "a line was cut off, or is too long".to_owned();
                }
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(event) => self.handle(event),
                // A newer admin may say more than we know.
                Err(error) => tracing::warn!(%error, "an event from admin is not understood; ignored"),
            }
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Alive => {}
            Event::Snapshot { tokens: ids, limits } => {
                self.pool.forget_all();
                tracing::info!(tokens = ids.len(), "event stream from admin stands");
                let tokens = Arc::new(ValidTokens { ids, limits });
                self.tell_all(|| ToVolume::Tokens(tokens.clone()));
            }
            Event::TokenRevoked { id, cause } => {
                tracing::info!(token = id, cause, "token ended");
                self.pool.forget_token(&id, clock::now());
                self.tell_all(|| ToVolume::Revoked { token: id.clone(), cause: cause.clone() });
            }
            Event::TokenUpdated { id, limits } => {
                tracing::info!(token = id, ?limits, "limits of a token changed");
                self.pool.forget_all();
                self.tell_all(|| ToVolume::Limits { token: id.clone(), limits });
            }
            Event::VolumeUpdated { settings } => {
                self.pool.forget_all();
                if let Some(volume) = self.volumes.find(&settings.id) {
                    volume.send(ToVolume::Settings(Box::new(settings)));
                }
            }
            Event::VolumeRetired { id } => {
                self.pool.forget_all();
                if let Some(volume) = self.volumes.find(&id) {
                    volume.send(ToVolume::Retired);
                }
            }
        }
    }

    fn tell_all(&self, message: impl Fn() -> ToVolume) {
        for volume in self.volumes.all() {
            volume.send(message());
        }
    }
}
