//! A few threads that ask admin, so that no connection's core ever waits for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use flexfs_wire::settings::{TokenRefusal, ValidateAnswer, ValidateRequest};
use tokio::sync::oneshot;

use super::admin::Authority;
use super::cache::{Cache, Key};
use super::http::AdminError;
use crate::clock;

/// Threads that ask admin: an answer takes a millisecond or two, a dead admin four seconds.
const THREADS: usize = 4;
/// Questions that may wait; beyond it a client is told to come back.
const QUEUE_MAX: usize = 256;
/// A client waits no longer than this for its verdict.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Admin's answer, or one it gave some seconds ago.
    Answer(Box<ValidateAnswer>),
    /// Admin gave none.
    Failed(AdminError),
    /// Too many questions, or no answer in time.
    Busy,
}

struct Question {
    request: ValidateRequest,
    key: Key,
    asked: Instant,
    answer: oneshot::Sender<Verdict>,
}

/// The threads, their queue and the cache of positive answers. Lives as long as the process.
#[derive(Clone)]
pub(crate) struct Pool {
    questions: Sender<Question>,
    cache: Arc<Mutex<Cache>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(authority: &Arc<dyn Authority>) -> std::io::Result<Self> {
        let (questions, queue) = bounded(QUEUE_MAX);
        let cache = Arc::new(Mutex::new(Cache::default()));
        for number in 0..THREADS {
            let (queue, cache, authority) = (queue.clone(), cache.clone(), authority.clone());
            std::thread::Builder::new()
                .name(format!("validate-{number}"))
                .spawn(move || serve(&queue, &cache, authority.as_ref()))?;
        }
        Ok(Self { questions, cache })
    }

    /// The verdict on a token.
    pub(crate) async fn validate(&self, request: ValidateRequest) -> Verdict {
        let key = key(&request);
        if let Some(access) = lock(&self.cache).get(&key, clock::now()) {
            return Verdict::Answer(Box::new(ValidateAnswer::Accepted(Box::new(access.clone()))));
        }
        let (answer, wait) = oneshot::channel();
        let asked = clock::now();
        match self.questions.try_send(Question { request, key, asked, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Verdict::Busy,
        }
        match tokio::time::timeout(WAIT_MAX, wait).await {
            Ok(Ok(verdict)) => self.last_look(verdict, asked),
            Ok(Err(_)) | Err(_) => Verdict::Busy,
        }
    }

    /// An answer that was on its way when the token was revoked is no answer.
    fn last_look(&self, verdict: Verdict, asked: Instant) -> Verdict {
        let Verdict::Answer(answer) = &verdict else { return verdict };
        let ValidateAnswer::Accepted(access) = answer.as_ref() else { return verdict };
        if !lock(&self.cache).is_revoked(&access.token_id, asked) {
            return verdict;
        }
        let text = "the token has just been revoked".to_owned();
        Verdict::Answer(Box::new(ValidateAnswer::Refused { reason: TokenRefusal::Unknown, text }))
    }

    /// A token ended: no answer may open another session for it.
    pub(crate) fn forget_token(&self, token_id: &str, now: Instant) {
        lock(&self.cache).forget_token(token_id, now);
    }

    /// Something changed at admin: ask again for everything.
    pub(crate) fn forget_all(&self) {
        lock(&self.cache).clear();
    }
}

fn serve(queue: &Receiver<Question>, cache: &Mutex<Cache>, authority: &dyn Authority) {
    for Question { request, key, asked, answer } in queue {
        if answer.is_closed() {
            continue; // The client is gone.
        }
        let cached = lock(cache).get(&key, clock::now()).cloned();
        let verdict = match cached {
            Some(access) => Verdict::Answer(Box::new(ValidateAnswer::Accepted(Box::new(access)))),
            None => match authority.validate(&request) {
                Ok(verdict) => {
                    if let ValidateAnswer::Accepted(access) = &verdict {
                        lock(cache).put(key, access.as_ref().clone(), asked, clock::now());
                    }
                    Verdict::Answer(Box::new(verdict))
                }
                Err(error) => Verdict::Failed(error),
            },
        };
        // A client that went away in between needs no answer.
        let _ = answer.send(verdict);
    }
}

fn key(request: &ValidateRequest) -> Key {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    hash.update(request.token.as_bytes());
    hash.update(&[0]);
    hash.update(request.volume.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

fn lock(cache: &Mutex<Cache>) -> std::sync::MutexGuard<'_, Cache> {
    // The cache holds no invariant that a panic could break.
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
