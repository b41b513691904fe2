//! The engine's journals, looked at before the engine opens them.
//!
//! fjall reads a journal up to the first entry it cannot decode and cuts the file there, without a word; where an entry
//! decodes and its batch's checksum is wrong it refuses to open. A torn tail is what a crash leaves: nothing of it was
//! synced. Anything else would silently lose what was durable, or leave an operator with "ChecksumMismatch". So the
//! journals are checked here, and fjall only ever sees whole batches.
//!
//! ```text
//! batch  1 items:u32 seqno:u64  item*  3 checksum:u64 "FJL\x03"     little-endian, back to back
//! item   2 type:u8 packing:u8 keyspace:u64 key:u16 value:u32 stored:u32  key bytes, stored bytes
//!        4 keyspace:u64
//! ```
//! The checksum is XXH3 over the items. Behind the last batch a journal holds zeros, or ends. (fjall 3.1, `journal/`)

use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::store::SEQUENCE_KEY;

/// Bytes of a batch's head.
const HEAD: usize = 13;
/// Bytes of an item before its key.
const ITEM: usize = 21;
/// fjall numbers batches upward and takes few numbers for itself; the head is not under the checksum, so a number far
/// off is damage.
const SEQNO_STEP_MAX: u64 = 1 << 20;
/// Ends a batch.
const TRAILER: &[u8] = b"FJL\x03";

/// A journal that has more wrong with it than a torn tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub journal: PathBuf,
    /// Where its whole batches end, bytes.
    pub offset: u64,
    /// What is found there.
    pub cause: &'static str,
    /// The last commit before it, when this journal has any.
    pub last: Option<u64>,
    /// First and last commit of the whole batches behind it, and how many they are.
    pub behind: Option<(u64, u64, u64)>,
    /// Whether later journals exist: this one was synced and sealed.
    pub sealed: bool,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is damaged at byte {}: {}", self.journal.display(), self.offset, self.cause)?;
        match self.behind {
            Some((first, last, count)) => {
                write!(f, ", with {count} whole batches behind it (commits {first} to {last})")
            }
            None => write!(f, ", with nothing whole behind it"),
        }?;
        if self.sealed {
            f.write_str(
                "; it was complete and synced once, so the disk has lost data: check the disk, restore the folder of this \
                 volume's database from a copy",
            )
        } else {
            f.write_str(
                "; a power loss does this to batches that were not synced yet, a failing disk to any. Restore the folder \
                 of this volume's database from a copy, or start once with --cutJournal: it keeps the journal beside it, \
                 cuts it there, and clients that are still mounted replay what they were not told to be durable",
            )
        }
    }
}

/// Checks the journals of a database; cuts the torn tail of the newest one. `durable`: the commit up to which all was
/// synced, as far as is known.
///
/// # Errors
/// A journal cannot be read or cut. Inside: the first damage that is no torn tail.
pub(super) fn check(folder: &Path, durable: u64) -> io::Result<Result<(), Damage>> {
    let mut journals = numbered(folder)?;
    let newest = journals.pop();
    for (_, journal) in &journals {
        let bytes = std::fs::read(journal)?;
        if let Some(damage) = look(journal, &bytes, true) {
            return Ok(Err(damage));
        }
    }
    let Some((_, journal)) = newest else { return Ok(Ok(())) };
    let bytes = std::fs::read(&journal)?;
    let Some(damage) = look(&journal, &bytes, false) else { return Ok(Ok(())) };
    let is_torn = damage.behind.is_none() && damage.last.is_none_or(|last| last >= durable);
    if !is_torn {
        return Ok(Err(damage));
    }
    tracing::info!(journal = %journal.display(), offset = damage.offset, "the torn end of the journal is cut off");
    cut(&journal, damage.offset)?;
    Ok(Ok(()))
}

/// Cuts a damaged journal, after its bytes were copied beside it. Gives the copy's name.
///
/// # Errors
/// It is sealed, or the disk refuses.
pub(super) fn cut_damaged(damage: &Damage) -> io::Result<PathBuf> {
    if damage.sealed {
        return Err(io::Error::other("a sealed journal cannot be cut: later journals build on it"));
    }
    let copy = damage.journal.with_extension(format!("cut-at-{}", damage.offset));
    std::fs::copy(&damage.journal, &copy)?;
    std::fs::File::open(&copy)?.sync_all()?;
    cut(&damage.journal, damage.offset)?;
    Ok(copy)
}

fn cut(journal: &Path, offset: u64) -> io::Result<()> {
    let file = std::fs::File::options().write(true).open(journal)?;
    file.set_len(offset)?;
    file.sync_all()
}

/// The journals of a folder, oldest first.
fn numbered(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(journals),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|number: u64| (number, path)));
    }
    journals.sort();
    Ok(journals)
}

fn look(journal: &Path, bytes: &[u8], sealed: bool) -> Option<Damage> {
    let mut at = 0;
    let (mut last, mut seqno) = (None, 0);
    let cause = loop {
        match batch(&bytes[at..]) {
            Ok(Some(found)) if at > 0 && found.seqno.wrapping_sub(seqno + 1) >= SEQNO_STEP_MAX => {
                break "a batch's number is out of order";
            }
            Ok(Some(found)) => {
                at += found.bytes;
                seqno = found.seqno;
                last = found.commit.or(last);
            }
            Ok(None) => return None,
            Err(cause) => break cause,
        }
    };
    let behind = behind(&bytes[at..], last.unwrap_or(0));
    Some(Damage { journal: journal.into(), offset: at as u64, cause, last, behind, sealed })
}

/// Whole batches behind a damaged one: they are younger than the last good one.
fn behind(bytes: &[u8], last: u64) -> Option<(u64, u64, u64)> {
    let mut found: Option<(u64, u64, u64)> = None;
    let mut at = 1;
    // A batch begins with a 1.
    while let Some(step) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 1)) {
        at += step;
        match batch(&bytes[at..]) {
            Ok(Some(Batch { bytes, commit: Some(commit), .. })) if commit > last => {
                let (first, count) = found.map_or((commit, 0), |(first, _, count)| (first, count));
                found = Some((first, commit, count + 1));
                at += bytes;
            }
            Ok(_) | Err(_) => at += 1,
        }
    }
    found
}

#[derive(Debug)]
struct Batch {
    bytes: usize,
    seqno: u64,
    /// Ours: the value of `SEQUENCE_KEY`.
    commit: Option<u64>,
}

/// The batch at the start of `bytes`; `None` where only zeros or nothing follow.
fn batch(bytes: &[u8]) -> Result<Option<Batch>, &'static str> {
    match bytes.first() {
        None => return Ok(None),
        Some(0) if bytes.iter().all(|byte| *byte == 0) => return Ok(None),
        Some(1) => {}
        Some(_) => return Err("no batch begins there"),
    }
    let torn = "a batch is not complete";
    let head = bytes.get(..HEAD).ok_or(torn)?;
    let (items, seqno) = (u32_at(head, 1), u64_at(head, 5));
    let mut at = HEAD;
    let mut commit = None;
    for _ in 0..items {
        match bytes.get(at).ok_or(torn)? {
            2 => {
                let item = bytes.get(at..at + ITEM).ok_or(torn)?;
                let (key, stored) =
                    (usize::from(u16::from_le_bytes([item[11], item[12]])), u32_at(item, 17) as usize);
                let from = at + ITEM;
                let pair = bytes.get(from..from + key + stored).ok_or(torn)?;
                if &pair[..key] == SEQUENCE_KEY && stored == 8 {
                    commit = Some(u64_at(pair, key));
                }
                at = from + key + stored;
            }
            4 => at += 9,
            _ => return Err("a batch holds no item where one must be"),
        }
    }
    let end = bytes.get(at..at + HEAD).ok_or(torn)?;
    if end[0] != 3 || &end[9..] != TRAILER {
        return Err("a batch has no end where it must be");
    }
    if xxh3_64(&bytes[HEAD..at]) != u64_at(end, 1) {
        return Err("a batch's checksum is wrong");
    }
    Ok(Some(Batch { bytes: at + HEAD, seqno, commit }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch as fjall writes it, with one item of ours and the sequence.
    fn made(number: u64) -> Vec<u8> {
        let mut items = Vec::new();
        for (key, value) in [(&[7, 1][..], &[9; 40][..]), (SEQUENCE_KEY, &number.to_le_bytes())] {
            items.extend([2, 0, 0]);
            items.extend(1u64.to_le_bytes());
            items.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
            items.extend([u32::try_from(value.len()).unwrap().to_le_bytes(); 2].concat());
            items.extend(key);
            items.extend(value);
        }
        let mut bytes = [&[1, 2, 0, 0, 0][..], &(number + 10).to_le_bytes()].concat();
        bytes.extend(&items);
        bytes.push(3);
        bytes.extend(xxh3_64(&items).to_le_bytes());
        bytes.extend(TRAILER);
        bytes
    }

    fn journal(count: u64) -> Vec<u8> {
        (1..=count).flat_map(made).collect()
    }

    #[test]
    fn every_prefix_ends_with_whole_batches() {
        let (bytes, one) = (journal(3), made(1).len());
        for length in 0..=bytes.len() {
            for zeros in [0, 5000] {
                let mut file = bytes[..length].to_vec();
                file.resize(length + zeros, 0);
                let whole = length / one;
                let found = look(Path::new("j"), &file, false);
                if length % one == 0 {
                    assert_eq!(found, None, "{length}");
                    continue;
                }
                let found = found.unwrap();
                assert_eq!((found.offset, found.behind), ((whole * one) as u64, None), "{length}");
                assert_eq!(found.last, (whole > 0).then_some(whole as u64), "{length}");
            }
        }
    }

    #[test]
    fn every_changed_byte_is_found_and_what_is_behind_it_counted() {
        let (bytes, one) = (journal(5), made(1).len());
        for at in one..2 * one {
            for change in [0x01, 0x80, 0xff] {
                let mut file = bytes.clone();
                file[at] ^= change;
                let Some(found) = look(Path::new("j"), &file, false) else {
                    // The low bytes of a number may still look well; it orders nothing here, ours is under the checksum.
                    assert!((5..8).contains(&(at - one)), "byte {at}");
                    continue;
                };
                // A number too high makes the next one too low: that one is found then, whole.
                let wanted = if found.offset == one as u64 { Some((3, 5, 3)) } else { Some((4, 5, 2)) };
                assert!(found.offset <= 2 * one as u64);
                assert_eq!(found.behind, wanted, "byte {at}: {found:?}");
            }
        }
    }

    #[test]
    fn noise_is_no_batch() {
        let noise: Vec<u8> =
            (0..200_000u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
        let found = look(Path::new("j"), &noise, true).unwrap();
        assert_eq!((found.offset, found.last, found.behind), (0, None, None));
        assert_eq!(look(Path::new("j"), &[0; 100_000], true), None);
    }
}
