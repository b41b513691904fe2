//! What a traced process did to files, in order.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// The calls that are traced.
pub(crate) const CALLS: &str = "trace=open,openat,creat,close,dup,dup2,dup3,write,pwrite64,writev,pwritev,pwritev2,lseek,read,readv,\
    ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,\
    rmdir,link,linkat,copy_file_range,sendfile,mmap";

/// A change.
#[derive(Debug)]
pub(crate) enum Op {
    /// A file that is there from now on, perhaps emptied.
    Create {
        path: PathBuf,
        empty: bool,
    },
    /// Without an offset: at the end.
    Write {
        path: PathBuf,
        offset: Option<u64>,
        bytes: Vec<u8>,
    },
    Resize {
        path: PathBuf,
        size: u64,
    },
    /// Space allocated ahead: at least this size.
    Grow {
        path: PathBuf,
        size: u64,
    },
    Sync {
        path: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    MakeDir {
        path: PathBuf,
    },
    /// The process had learned that batches up to this number are durable.
    Said(u32),
}

/// See the module.
pub(crate) struct Trace {
    pub(crate) folder: PathBuf,
    pub(crate) ops: Vec<Op>,
}

impl Trace {
    /// Reads a log of `strace -f -xx -y`; only what is below `folder` counts.
    pub(crate) fn read(log: &Path, folder: &Path) -> Self {
        let mut reader = Reader { folder, offsets: HashMap::new(), begun: HashMap::new(), ops: Vec::new() };
        for line in BufReader::new(std::fs::File::open(log).unwrap()).lines() {
            reader.line(&line.unwrap());
        }
        Self { folder: folder.to_owned(), ops: reader.ops }
    }

    /// Changes of a kind.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.ops.iter().filter(|op| op.kind() == kind).count()
    }

    /// Where files with this ending were created.
    pub(crate) fn creations(&self, ending: &str) -> Vec<usize> {
        let is_one =
            |op: &Op| matches!(op, Op::Create { path, .. } if path.to_string_lossy().ends_with(ending));
        self.ops.iter().enumerate().filter(|(_, op)| is_one(op)).map(|(at, _)| at).collect()
    }

    /// When a folder of this name was moved to its place.
    pub(crate) fn births(&self, name: &str) -> usize {
        let is_it = |op: &Op| matches!(op, Op::Rename { to, .. } if to.ends_with(name));
        self.ops.iter().position(is_it).unwrap()
    }

    /// For the reader of a failure.
    pub(crate) fn summary(&self) -> String {
        let kinds = ["create", "write", "resize", "grow", "sync", "rename", "remove", "mkdir", "said"];
        kinds.map(|kind| format!("{kind} {}", self.count(kind))).join(", ")
    }
}

impl Op {
    fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Write { .. } => "write",
            Self::Resize { .. } => "resize",
            Self::Grow { .. } => "grow",
            Self::Sync { .. } => "sync",
            Self::Rename { .. } => "rename",
            Self::Remove { .. } => "remove",
            Self::MakeDir { .. } => "mkdir",
            Self::Said(_) => "said",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::Create { path, .. }
            | Self::Resize { path, .. }
            | Self::Grow { path, .. }
            | Self::Sync { path }
            | Self::Remove { path }
            | Self::MakeDir { path } => write!(f, " {}", path.display()),
            Self::Write { path, offset, bytes } => {
                write!(f, " {} at {offset:?}, {}", path.display(), bytes.len())
            }
            Self::Rename { from, to } => write!(f, " {} to {}", from.display(), to.display()),
            Self::Said(number) => write!(f, " {number}"),
        }
    }
}

struct Reader<'a> {
    folder: &'a Path,
    /// Where each descriptor writes next; `None`: at the end.
    offsets: HashMap<u32, Option<u64>>,
    /// Calls of other threads that went on in between.
    begun: HashMap<String, String>,
    ops: Vec<Op>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) {
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if rest.starts_with("---") || rest.starts_with("+++") {
            return;
        }
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            self.begun.insert(thread.to_owned(), begin.trim_end().to_owned());
            return;
        }
        // A call counts when it ends: what it wrote may be there earlier, which makes no other image.
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, end) = resumed.split_once("resumed>").unwrap();
            let whole = format!("{}{end}", self.begun.remove(thread).unwrap());
            return self.call(&whole);
        }
        self.call(rest);
    }

    fn call(&mut self, text: &str) {
        let Some((name, rest)) = text.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return };
        let arguments = arguments.trim_end().strip_suffix(')').unwrap_or(arguments);
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        let number = result.split(['<', ' ']).next().unwrap();
        let value: u64 = number.parse().unwrap_or(0);
        let parts = split(arguments);
        match name {
            "open" | "openat" | "creat" => self.open(&parts, result),
            "write" => {
                let (fd, path) = descriptor(parts[0]);
                let offset = self.offsets.get(&fd).copied().unwrap_or(Some(0));
                self.offsets.insert(fd, offset.map(|offset| offset + value));
                let bytes = text_of(parts[1]);
                self.write(path, offset, bytes);
            }
            "pwrite64" => {
                let (_, path) = descriptor(parts[0]);
                self.write(path, Some(parts[3].parse().unwrap()), text_of(parts[1]));
            }
            "read" | "readv" => {
                let (fd, _) = descriptor(parts[0]);
                let offset = self.offsets.entry(fd).or_insert(Some(0));
                *offset = offset.map(|offset| offset + value);
            }
            "lseek" => {
                let (fd, _) = descriptor(parts[0]);
                self.offsets.insert(fd, Some(value));
            }
            "ftruncate" => {
                let (_, path) = descriptor(parts[0]);
                self.push(path, |path| Op::Resize { path, size: parts[1].parse().unwrap() });
            }
            "fallocate" => {
                let (_, path) = descriptor(parts[0]);
                assert!(["0", "FALLOC_FL_KEEP_SIZE"].contains(&parts[1]), "{text}");
                if parts[1] == "0" {
                    let size = parts[2].parse::<u64>().unwrap() + parts[3].parse::<u64>().unwrap();
                    self.push(path, |path| Op::Grow { path, size });
                }
            }
            "fsync" | "fdatasync" => {
                let (_, path) = descriptor(parts[0]);
                self.push(path, |path| Op::Sync { path });
            }
            "rename" => self.rename(path_of(parts[0]), path_of(parts[1])),
            "renameat" | "renameat2" => self.rename(path_of(parts[1]), path_of(parts[3])),
            "unlink" | "rmdir" => self.push(path_of(parts[0]), |path| Op::Remove { path }),
            "unlinkat" => {
                let path = path_of(parts[1]);
                let path = if path.is_absolute() { path } else { descriptor(parts[0]).1.join(path) };
                self.push(path, |path| Op::Remove { path });
            }
            "mkdir" => self.push(path_of(parts[0]), |path| Op::MakeDir { path }),
            "mkdirat" => self.push(path_of(parts[1]), |path| Op::MakeDir { path }),
            "close" | "dup" | "dup2" | "dup3" | "sync_file_range" => {}
            "mmap" => {
                let shared = parts[3].contains("MAP_SHARED") && parts[2].contains("PROT_WRITE");
                assert!(!shared || !parts[4].contains(&*self.folder.to_string_lossy()), "{text}");
            }
            _ => assert!(!arguments.contains(&*self.folder.to_string_lossy()), "not understood: {text}"),
        }
    }

    fn open(&mut self, parts: &[&str], result: &str) {
        let (fd, path) = descriptor(result);
        let flags = parts.iter().find(|part| part.contains("O_")).copied().unwrap_or("O_CREAT|O_TRUNC");
        self.offsets.insert(fd, (!flags.contains("O_APPEND")).then_some(0));
        let empty = flags.contains("O_TRUNC");
        if flags.contains("O_CREAT") || empty {
            self.push(path, |path| Op::Create { path, empty });
        }
    }

    fn write(&mut self, path: PathBuf, offset: Option<u64>, bytes: Vec<u8>) {
        if path == self.folder.join("said") {
            let number = std::str::from_utf8(&bytes).unwrap().trim_end().parse().unwrap();
            return self.ops.push(Op::Said(number));
        }
        self.push(path, |path| Op::Write { path, offset, bytes });
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf) {
        self.push(from, |from| Op::Rename { from, to });
    }

    fn push(&mut self, path: PathBuf, op: impl FnOnce(PathBuf) -> Op) {
        if path.starts_with(self.folder) && path != self.folder.join("said") {
            self.ops.push(op(path));
        }
    }
}

/// Arguments, parted at commas outside of strings and braces.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0u32, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'[' | b'{' | b'<' if !quoted => depth += 1,
            b']' | b'}' | b'>' if !quoted => depth = depth.saturating_sub(1),
            b',' if !quoted && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// `5</path>`: number and path.
fn descriptor(text: &str) -> (u32, PathBuf) {
    let (number, rest) = text.trim().split_once('<').unwrap_or((text, ""));
    let path = rest.rsplit_once('>').map_or("", |(path, _)| path);
    (number.trim().parse().unwrap_or(u32::MAX), PathBuf::from(String::from_utf8(unescape(path)).unwrap()))
}

fn path_of(text: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(text_of(text)).unwrap())
}

/// A quoted string of strace.
fn text_of(text: &str) -> Vec<u8> {
    let inner = text.trim().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    unescape(inner.unwrap_or_else(|| panic!("cut: {}", &text[..text.len().min(80)])))
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len() / 4);
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"\\x") {
            out.push(u8::from_str_radix(&text[at + 2..at + 4], 16).unwrap());
            at += 4;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}
