//! Bytes out of blocks: from the cache, from a fetch under way, or from the server.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flexfs_wire::errno::Errno;
use flexfs_wire::id::BlockId;
use flexfs_wire::limits::SEGMENT_BYTES;
use flexfs_wire::seal::Node;

use super::cache::{Bytes, Cache, Claim, Fetch, Found};
use super::core::Core;
use super::layout::Want;
use super::server::Server;
use crate::cancel::Cancel;
use crate::store::{Piece, Place};
use crate::wait::all;

const SEGMENT: usize = SEGMENT_BYTES as usize;
/// Segments that readahead asks for in one request: 1 MiB keeps a link busy and lets others in between.
const AHEAD_SEGMENTS: usize = 16;

/// Segments that are asked for in one request around a reader that jumps: his next miss waits behind 256 KiB, 0.3 ms at 1 GB/s.
const AROUND_SEGMENTS: usize = 4;
/// Such pieces at once, whoever jumps: links stay busy while one is opened, and no longer queue builds up at them.
pub(super) const AROUND_MAX: usize = 4;

/// Why bytes did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchError {
    /// The block is not there (any more): the layout is out of date, or the block is lost.
    Gone(BlockId),
    /// The call failed, or what came is damaged; logged where it was found.
    Failed(Errno),
}

impl From<Errno> for FetchError {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// The bytes of one segment that a reader wants.
#[derive(Debug)]
struct Part<'a> {
    segment: u32,
    /// Bytes of the segment before them.
    skip: usize,
    out: &'a mut [u8],
    /// Set when the segment goes to the cache.
    claim: Option<Claim>,
}

impl Part<'_> {
    /// Whole segments go where the reader wants them; of others the rest is kept as well.
    fn place<'b>(&'b mut self, opened: &'b mut Vec<u8>) -> Place<'b> {
        if self.out.len() == SEGMENT { Place::Slice(self.out) } else { Place::Buffer(opened) }
    }

    /// Room for what does not go straight to its place.
    fn buffer(&self, cache: &Cache) -> Vec<u8> {
        if self.out.len() == SEGMENT { Vec::new() } else { cache.buffer() }
    }

    /// What was read is here, in `opened` unless it went straight to its place.
    fn finish(mut self, cache: &Cache, block: BlockId, opened: Vec<u8>) -> Result<(), FetchError> {
        if self.out.len() == SEGMENT {
            return Ok(());
        }
        let claim = self.claim.take();
        let opened = Arc::new(opened);
        take(block, self, &opened)?;
        match claim {
            Some(claim) => claim.fill(opened),
            None => cache.recycle(opened),
        }
        Ok(())
    }
}

/// How a part is got.
enum Job<'a> {
    /// Its pages alone.
    Alone(Part<'a>),
    /// Neighbouring segments in one request.
    Run(Vec<Part<'a>>),
    /// Somebody fetches it.
    Wait(Part<'a>, Arc<Fetch>),
}

impl<S: Server> Core<S> {
    /// Fills the reader's buffer where `wants`, ascending, say; whether something was to be asked for. With `alone` what is not here is
    /// fetched without what is around it.
    pub(crate) async fn fetch(
        &self,
        node: Node,
        wants: &[Want],
        alone: bool,
        out: &mut [u8],
        cancel: Option<&Cancel>,
    ) -> Result<bool, FetchError> {
        let mut jobs = Vec::new();
        let mut is_missed = false;
        let mut rest = out;
        let mut at = 0;
        for want in wants {
            let (_, behind) = std::mem::take(&mut rest).split_at_mut(want.at - at);
            let (mine, behind) = behind.split_at_mut(want.length);
            rest = behind;
            at = want.at + want.length;
            let found = deal(&self.cache, want, mine, alone);
            is_missed |= found.iter().any(|job| matches!(job, Job::Run(_) | Job::Alone(_)));
            jobs.extend(found.into_iter().map(|job| self.work(node, want.block, job, cancel)));
        }
        // A caller that leaves takes all of them along; the first error is as good as any.
        all(jobs).await.into_iter().collect::<Result<(), _>>().map(|()| is_missed)
    }

    async fn work(
        &self,
        node: Node,
        block: BlockId,
        job: Job<'_>,
        cancel: Option<&Cancel>,
    ) -> Result<(), FetchError> {
        match job {
            Job::Alone(part) => self.page(node, block, part, cancel).await,
            Job::Run(parts) => self.run(node, block, parts, cancel).await,
            Job::Wait(part, fetch) => {
                let (key, wanted) = ((block, part.segment), part.out.len());
                let Some(bytes) = fetch.wait(cancel).await? else {
                    return self.run(node, block, vec![part], cancel).await;
                };
                drop(fetch);
                take(block, part, &bytes)?;
                if wanted == bytes.len() {
                    self.cache.release(key, bytes);
                }
                Ok(())
            }
        }
    }

    /// Fetches the pages of a part; the whole segment when they cannot be had alone, or are damaged.
    async fn page(
        &self,
        node: Node,
        block: BlockId,
        mut part: Part<'_>,
        cancel: Option<&Cancel>,
    ) -> Result<(), FetchError> {
        let _going = self.alone.begin();
        let range = part.skip..part.skip + part.out.len();
        let mut whole = Vec::new();
        let piece = Piece { block, segment: part.segment, range, out: part.out, whole: &mut whole };
        let is_whole = match self.server.read_pages(node, piece, cancel).await {
            Ok(true) => return Ok(()),
            Ok(false) => true,
            Err(Errno::EIO) => false,
            Err(errno) => return Err(self.failed(block, errno)),
        };
        part.claim = self.cache.claim((block, part.segment));
        if is_whole {
            part.finish(&self.cache, block, whole)
        } else {
            self.run(node, block, vec![part], cancel).await
        }
    }

    /// Fetches neighbouring segments.
    async fn run(
        &self,
        node: Node,
        block: BlockId,
        mut parts: Vec<Part<'_>>,
        cancel: Option<&Cancel>,
    ) -> Result<(), FetchError> {
        let Some(first) = parts.first().map(|part| part.segment) else { return Ok(()) };
        let mut opened: Vec<_> = parts.iter().map(|part| part.buffer(&self.cache)).collect();
        let mut places: Vec<Place<'_>> =
            parts.iter_mut().zip(&mut opened).map(|(part, opened)| part.place(opened)).collect();
        self.read_block(node, block, first, &mut places, cancel).await?;
        for (part, opened) in parts.into_iter().zip(opened) {
            part.finish(&self.cache, block, opened)?;
        }
        Ok(())
    }

    /// Damaged bytes are fetched once more: the fault may be the way's.
    async fn read_block(
        &self,
        node: Node,
        block: BlockId,
        first: u32,
        places: &mut [Place<'_>],
        cancel: Option<&Cancel>,
    ) -> Result<(), FetchError> {
        let mut result = self.server.read_block(node, block, first, places, cancel).await;
        if result == Err(Errno::EIO) {
            tracing::warn!(
                ino = node.ino.0,
                block = block.0,
                first,
                "fetching once more what could not be read"
            );
            result = self.server.read_block(node, block, first, places, cancel).await;
        }
        result.map_err(|errno| self.failed(block, errno))
    }

    /// What an error of the server's means to who reads a block.
    fn failed(&self, block: BlockId, errno: Errno) -> FetchError {
        if errno == Errno::ENOENT {
            return FetchError::Gone(block);
        }
        self.counters.count_error();
        FetchError::Failed(errno)
    }

    /// Fetches ahead of a reader, in the background, what is neither here nor coming.
    pub(crate) fn fetch_ahead(self: &Arc<Self>, node: Node, wants: &[Want]) {
        for want in wants {
            let claims =
                segments(want).filter_map(|segment| self.cache.claim((want.block, segment))).collect();
            for run in runs(claims, Claim::segment) {
                let mut run = run.into_iter();
                loop {
                    let claims: Vec<Claim> = run.by_ref().take(AHEAD_SEGMENTS).collect();
                    if claims.is_empty() {
                        break;
                    }
                    let ahead = Ahead::new(self, claims.len());
                    let block = want.block;
                    drop(flexfs_uring::spawn(async move { ahead.0.fill(node, block, claims).await }));
                }
            }
        }
    }

    /// Fetches in the background what is around readers that jump, piece after piece: what one of them misses meanwhile has
    /// to wait behind one piece at most, and is claimed by whoever comes to it first.
    pub(crate) fn fetch_around(self: &Arc<Self>, node: Node, wants: Vec<Want>) {
        let ahead = Ahead::new(self, wants.iter().map(|want| segments(want).len()).sum());
        drop(flexfs_uring::spawn(async move {
            for want in wants {
                let all: Vec<u32> = segments(&want).collect();
                for piece in all.chunks(AROUND_SEGMENTS) {
                    let _permit = ahead.0.around.acquire().await;
                    let absent =
                        piece.iter().filter_map(|&segment| ahead.0.cache.claim((want.block, segment)));
                    for claims in runs(absent.collect(), Claim::segment) {
                        ahead.0.fill(node, want.block, claims).await;
                    }
                }
            }
        }));
    }

    async fn fill(&self, node: Node, block: BlockId, claims: Vec<Claim>) {
        let Some(first) = claims.first().map(Claim::segment) else { return };
        let mut opened: Vec<_> = claims.iter().map(|_| self.cache.buffer()).collect();
        let mut places: Vec<Place<'_>> = opened.iter_mut().map(Place::Buffer).collect();
        // Nobody waits for it by name: who needs it fetches it himself, and says what is wrong.
        if self.server.read_block(node, block, first, &mut places, None).await.is_ok() {
            for (claim, opened) in claims.into_iter().zip(opened) {
                claim.fill(Arc::new(opened));
            }
        }
    }
}

/// Bytes that readahead has asked for; they count until this is gone.
struct Ahead<S: Server>(Arc<Core<S>>, u64);

impl<S: Server> Ahead<S> {
    fn new(core: &Arc<Core<S>>, segments: usize) -> Self {
        let bytes = (segments * SEGMENT) as u64;
        core.ahead.fetch_add(bytes, Ordering::Relaxed);
        Self(Arc::clone(core), bytes)
    }
}

impl<S: Server> Drop for Ahead<S> {
    fn drop(&mut self) {
        self.0.ahead.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Numbers of the segments that hold a wanted range.
fn segments(want: &Want) -> Range<u32> {
    let last = want.block_offset as usize + want.length - 1;
    // A block has at most 128 segments: both fit.
    want.block_offset / SEGMENT_BYTES..u32::try_from(last / SEGMENT).unwrap_or(u32::MAX - 1) + 1
}

/// Copies what is here; the rest becomes jobs.
fn deal<'a>(cache: &Arc<Cache>, want: &Want, mut out: &'a mut [u8], alone: bool) -> Vec<Job<'a>> {
    let mut skip = want.block_offset as usize % SEGMENT;
    let mut absent = Vec::new();
    let mut jobs = Vec::new();
    for segment in segments(want) {
        let length = (SEGMENT - skip).min(out.len());
        let (mine, behind) = std::mem::take(&mut out).split_at_mut(length);
        out = behind;
        let key = (want.block, segment);
        let mut part = Part { segment, skip, out: mine, claim: None };
        skip = 0;
        match cache.find(key) {
            Found::Here(bytes) if bytes.len() >= part.skip + length => {
                part.out.copy_from_slice(&bytes[part.skip..part.skip + length]);
                if length == bytes.len() {
                    cache.release(key, bytes);
                }
            }
            // Shorter than the extent says: the fetch will say so.
            Found::Here(_) => absent.push(part),
            // What was asked for around it may be long behind.
            Found::Coming(_) | Found::Absent if alone => jobs.push(Job::Alone(part)),
            Found::Coming(fetch) => jobs.push(Job::Wait(part, fetch)),
            Found::Absent => {
                // The rest of it may be wanted next. Whole ones are the kernel's to keep.
                part.claim = if length < SEGMENT { cache.claim(key) } else { None };
                absent.push(part);
            }
        }
    }
    jobs.extend(runs(absent, |part| part.segment).into_iter().map(Job::Run));
    jobs
}

/// Groups ascending items into runs of neighbouring segments.
fn runs<T>(items: Vec<T>, segment: impl Fn(&T) -> u32) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    for item in items {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| segment(last) + 1 == segment(&item)) => run.push(item),
            _ => runs.push(vec![item]),
        }
    }
    runs
}

/// Copies a part out of a segment that somebody else fetched.
fn take(block: BlockId, part: Part<'_>, bytes: &Bytes) -> Result<(), FetchError> {
    let Some(wanted) = bytes.get(part.skip..part.skip + part.out.len()) else {
        tracing::error!(
            block = block.0,
            segment = part.segment,
            "an extent goes beyond the end of its block"
        );
        return Err(FetchError::Failed(Errno::EIO));
    };
    part.out.copy_from_slice(wanted);
    Ok(())
}
