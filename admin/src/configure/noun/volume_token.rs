//! Volume tokens on the command line.

use clap::Args;
use serde_json::Value;

use super::{Fields, View, set};
use crate::configure::ask;
use crate::configure::print::{Look, column, detail};
use crate::configure::text::{parse_end, parse_size};

/// Looks.
pub(crate) const VIEW: View = View {
    noun: "volume token",
    path: "volume-tokens",
    key: "Id of the volume token",
    columns: &[
        column("id", Look::Plain),
        column("volume", Look::Plain),
        detail("volumeId", Look::Plain),
        column("mountPath", Look::Plain),
        column("flags", Look::Flags),
        detail("networks", Look::Plain),
        column("maxSessions", Look::Limit),
        column("opsPerSecond", Look::Limit),
        column("bytesPerSecond", Look::SizeLimit),
        column("createdAt", Look::Time),
        column("expiresAt", Look::Time),
        column("lastUsedAt", Look::Time),
        column("lastUsedBy", Look::Plain),
        column("notes", Look::Plain),
    ],
};

/// What can be given at creation and changed later.
#[derive(Debug, Args)]
struct Changes {
    /// Directory of the volume that the holder sees as its root [default: /].
    #[arg(long = "mountPath")]
    mount_path: Option<String>,
    /// Flags of mounts with this token: ro,noExec,noSUID,noATime,noACL,rootSquash,umask=0027; "" takes them away.
    #[arg(long)]
    flags: Option<String>,
    /// Networks it may be used from: 10.1.0.0/16,2001:db8::/32; "" for all.
    #[arg(long)]
    networks: Option<String>,
    /// Sessions (mounts) that may stand at once with this token; 0 = no limit.
    #[arg(long = "maxSessions")]
    max_sessions: Option<u32>,
    /// Requests per second to the metadata server, of all its sessions together; 0 = no limit.
    #[arg(long = "opsPerSecond")]
    ops_per_second: Option<u32>,
    /// Bytes of files per second (of blocks as stored), read and written, of all its sessions together: 10M, from 64K on; 0 = no limit.
    #[arg(long = "bytesPerSecond", value_parser = parse_size)]
    bytes_per_second: Option<u64>,
    /// Whose it is, what for.
    #[arg(long)]
    notes: Option<String>,
    /// End of validity: 30d (from now), 2030-01-31, 2030-01-31T12:00:00Z; `never` takes it away.
    #[arg(long)]
    expires: Option<String>,
}

impl Changes {
    fn put(self, fields: &mut Fields) -> anyhow::Result<()> {
        set(fields, "mountPath", self.mount_path);
        set(fields, "flags", self.flags);
        set(fields, "networks", self.networks);
        set(fields, "maxSessions", self.max_sessions);
        set(fields, "opsPerSecond", self.ops_per_second);
        set(fields, "bytesPerSecond", self.bytes_per_second);
        set(fields, "notes", self.notes);
        match self.expires.as_deref() {
            None => {}
            Some("never") => set(fields, "expiresAt", Some(Value::Null)),
            Some(end) => {
                let end = parse_end(end).map_err(|text| anyhow::anyhow!("--expires: {text}"))?;
                set(fields, "expiresAt", Some(end));
            }
        }
        Ok(())
    }
}

/// A new volume token.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the volume.
    #[arg(long, alias = "volumeID")]
    volume: Option<String>,
    #[command(flatten)]
    changes: Changes,
}

impl Create {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        set(&mut fields, "volume", Some(ask::text(self.volume, "Name of the volume", "--volume")?));
        self.changes.put(&mut fields)?;
        Ok(fields)
    }
}

/// Changes of a volume token.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Id.
    pub(crate) key: Option<String>,
    #[command(flatten)]
    changes: Changes,
}

impl Update {
    pub(crate) fn body(self) -> anyhow::Result<Fields> {
        let mut fields = Fields::new();
        self.changes.put(&mut fields)?;
        Ok(fields)
    }
}
