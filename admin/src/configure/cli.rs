//! The command line, and which verb does what.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::{Value, json};

use crate::configure::audit::{self, Audit};
use crate::configure::creds::{self, InitCreds};
use crate::configure::noun::{
    Fields, Noun, View, account, block_store, meta_store, provider, region, set, volume, volume_token,
};
use crate::configure::rest::Rest;
use crate::configure::text::parse_duration;
use crate::configure::up::{Down, Up};
use crate::configure::{ask, print};

/// Configure a flexfs cluster: accounts, stores, volumes and tokens; or run one on this machine.
#[derive(Debug, Parser)]
#[command(name = "configure.flexfs", version, disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Answer in JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Credentials file [default: ~/.flexfs/configure/creds].
    #[arg(long = "credsFile", global = true)]
    creds_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Store the address of admin and the account token.
    #[command(subcommand)]
    Init(Init),
    /// Make something.
    #[command(subcommand)]
    Create(Create),
    /// Change something; only what is given changes.
    #[command(subcommand)]
    Update(Update),
    /// Show one object.
    Show {
        /// What.
        noun: Noun,
        /// Which: name, id or code.
        key: Option<String>,
    },
    /// List objects.
    List {
        /// What.
        noun: Noun,
        /// Only those with this value, as in --filter volume=main; may be repeated.
        #[arg(long, value_parser = parse_filter)]
        filter: Vec<(String, String)>,
    },
    /// Delete something. A deleted token ends its sessions within a second; a deleted volume is retired.
    Delete {
        /// What.
        noun: Noun,
        /// Which: name, id or code.
        key: Option<String>,
    },
    /// Make a new token in place of an old one, which ends after the overlap.
    Rotate {
        /// Whose token: account, meta-store, or volume-token.
        noun: Noun,
        /// Which: name or id.
        key: Option<String>,
        /// How long the old token stays valid: 24h, 7d; 0 ends it at once.
        #[arg(long, default_value = "24h", value_parser = parse_duration, allow_hyphen_values = true)]
        overlap: i64,
    },
    /// What only volumes have.
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Show who did what, the newest first.
    Audit(Audit),
    /// Run a whole cluster on this machine and mount its volume.
    Up(Up),
    /// Unmount and stop what `up` started; the data stays.
    Down(Down),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder.
    Man {
        /// The folder.
        folder: PathBuf,
    },
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum VolumeVerb {
    /// Change the secret of an encrypted volume. Nothing is written again; mounts go on, new ones need the new secret.
    Rekey(volume::Rekey),
}

#[derive(Debug, Subcommand)]
enum Init {
    /// Store the address of admin and the account token in a credentials file (mode 0600).
    Creds(InitCreds),
}

#[derive(Debug, Subcommand)]
enum Create {
    /// An account, with its first token.
    Account(account::Create),
    /// A provider.
    Provider(provider::Create),
    /// A region of a provider.
    Region(region::Create),
    /// A block store.
    BlockStore(block_store::Create),
    /// A metadata server, with its token.
    MetaStore(meta_store::Create),
    /// A volume, with its first token.
    Volume(volume::Create),
    /// A token for a volume.
    VolumeToken(volume_token::Create),
}

impl Create {
    fn request(self) -> anyhow::Result<(Noun, Fields)> {
        Ok(match self {
            Self::Account(create) => (Noun::Account, create.body()?),
            Self::Provider(create) => (Noun::Provider, create.body()?),
            Self::Region(create) => (Noun::Region, create.body()?),
            Self::BlockStore(create) => (Noun::BlockStore, create.body()?),
            Self::MetaStore(create) => (Noun::MetaStore, create.body()?),
            Self::Volume(create) => (Noun::Volume, create.body()?),
            Self::VolumeToken(create) => (Noun::VolumeToken, create.body()?),
        })
    }
}

#[derive(Debug, Subcommand)]
enum Update {
    /// An account.
    Account(account::Update),
    /// A provider.
    Provider(provider::Update),
    /// A region.
    Region(region::Update),
    /// A block store.
    BlockStore(block_store::Update),
    /// A metadata server.
    MetaStore(meta_store::Update),
    /// A volume.
    Volume(volume::Update),
    /// A token for a volume.
    VolumeToken(volume_token::Update),
}

impl Update {
    fn request(self) -> anyhow::Result<(Noun, Option<String>, Fields)> {
        Ok(match self {
            Self::Account(mut update) => (Noun::Account, update.key.take(), update.body()?),
            Self::Provider(mut update) => (Noun::Provider, update.key.take(), update.body()?),
            Self::Region(mut update) => (Noun::Region, update.key.take(), update.body()?),
            Self::BlockStore(mut update) => (Noun::BlockStore, update.key.take(), update.body()?),
            Self::MetaStore(mut update) => (Noun::MetaStore, update.key.take(), update.body()?),
            Self::Volume(mut update) => (Noun::Volume, update.key.take(), update.body()?),
            Self::VolumeToken(mut update) => (Noun::VolumeToken, update.key.take(), update.body()?),
        })
    }
}

/// Does what the command line says.
///
/// # Errors
/// Whatever admin refuses, and what cannot be read or written here.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let named = cli.creds_file.as_deref();
    let rest = || creds::rest(named);
    let out = Out { json: cli.json };
    match cli.verb {
        Verb::Init(Init::Creds(init)) => {
            creds::init(init, named)?;
            out.done(&json!({ "credsFile": creds::file(named)? }));
            Ok(())
        }
        Verb::Create(create) => {
            let (noun, body) = create.request()?;
            let view = noun.view();
            out.object(&rest()?.post(&view.all(), body)?, view);
            Ok(())
        }
        Verb::Update(update) => {
            let (noun, key, body) = update.request()?;
            let (view, key) = which(noun, key)?;
            anyhow::ensure!(!body.is_empty(), "nothing to change was given; --help lists the fields");
            change(&rest()?, view, &key, body, out)
        }
        Verb::Show { noun, key } => {
            let (view, key) = which(noun, key)?;
            out.object(&rest()?.get(&view.one(&key))?, view);
            Ok(())
        }
        Verb::List { noun, filter } => {
            let view = noun.view();
            out.list(rest()?.list(&view.all(), &filter)?, view);
            Ok(())
        }
        Verb::Delete { noun, key } => {
            let (view, key) = which(noun, key)?;
            rest()?.delete(&view.one(&key))?;
            out.done(&json!({ "deleted": key }));
            Ok(())
        }
        Verb::Rotate { noun, key, overlap } => rotate(noun, key, overlap, rest, out),
        Verb::Volume(VolumeVerb::Rekey(rekey)) => {
            out.done(&rekey.run(&rest()?)?);
            Ok(())
        }
        Verb::Audit(audit) => {
            out.list(audit.rows(&rest()?)?, &audit::VIEW);
            Ok(())
        }
        Verb::Up(up) => up.run(cli.json),
        Verb::Down(down) => down.run(cli.json),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "configure.flexfs", &mut text);
            print::out(&String::from_utf8_lossy(&text));
            Ok(())
        }
        Verb::Man { folder } => {
            std::fs::create_dir_all(&folder)?;
            clap_mangen::generate_to(Cli::command(), &folder)?;
            out.done(&json!({ "folder": folder }));
            Ok(())
        }
        Verb::Version => {
            let version = env!("CARGO_PKG_VERSION");
            if cli.json {
                print::json(&json!({ "version": version }))
            } else {
                print::out(&format!("configure.flexfs {version}\n"))
            }
            Ok(())
        }
    }
}

fn change(rest: &Rest, view: &View, key: &str, body: Fields, out: Out) -> anyhow::Result<()> {
    // The new name, if there is one, is how the object is found afterwards.
    let renamed = body.get("name").and_then(Value::as_str).map(str::to_owned);
    let id = rest.get(&view.one(key))?["id"].as_str().map(str::to_owned);
    rest.put(&view.one(key), body)?;
    let key = id.or(renamed).unwrap_or_else(|| key.to_owned());
    out.object(&rest.get(&view.one(&key))?, view);
    Ok(())
}

fn rotate(
    noun: Noun,
    key: Option<String>,
    overlap: i64,
    rest: impl FnOnce() -> anyhow::Result<Rest>,
    out: Out,
) -> anyhow::Result<()> {
    if !matches!(noun, Noun::Account | Noun::MetaStore | Noun::VolumeToken) {
        anyhow::bail!("a {} has no token: rotate account, meta-store or volume-token", noun.view().noun);
    }
    let (view, key) = which(noun, key)?;
    let mut body = Fields::new();
    set(&mut body, "overlapSeconds", Some(overlap));
    let made = rest()?.post(&format!("{}/rotate", view.one(&key)), body)?;
    if out.json {
        print::json(&made);
    } else {
        let ends = made["oldEndsAt"].as_i64().map(crate::configure::text::show_time).unwrap_or_default();
        eprintln!("The old token ends {}.", if overlap == 0 { "now".to_owned() } else { ends });
        print::token(&made);
    }
    Ok(())
}

fn which(noun: Noun, key: Option<String>) -> anyhow::Result<(&'static View, String)> {
    let view = noun.view();
    Ok((view, ask::text(key, view.key, "an argument")?))
}

fn parse_filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a filter is key=value, as in volume=main".to_owned()),
    }
}

/// How answers leave.
#[derive(Clone, Copy, Debug)]
struct Out {
    json: bool,
}

impl Out {
    fn object(self, row: &Value, view: &View) {
        if self.json { print::json(row) } else { print::object(row, view.columns) }
    }

    fn list(self, rows: Vec<Value>, view: &View) {
        if self.json { print::json(&Value::Array(rows)) } else { print::table(&rows, view.columns) }
    }

    /// For verbs without an answer: people need none.
    fn done(self, answer: &Value) {
        if self.json {
            print::json(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
        for line in [
            "create volume main --metaStore m --blockStore b --blockSize 4M --retention forever",
            "create volume --name genomes --block-size 256KiB",
            "create volume-token --volumeID genomes --mountPath /released --flags ro --notes x",
            "create region --code a --provider b",
            "list volumes --filter metaStore=m --json",
            "update volume-token abc --expires never --flags ro",
            "rotate meta-store m --overlap 0",
            "create account ann --role volume-admin --volumes main,other",
            "update account ann --role auditor --volumes=",
            "audit --since 7d --account ann --noun volume --limit 20 --json",
            "show region aws/us-east-1 --credsFile /x",
            "up /mnt/x --stateDir /s --block-size 1M --adminPort 1 --metaPort 2 --metricsPort 3",
            "down",
            "create volume v --encryption --secretFile /s",
            "volume rekey v --secretFile /s --newSecretFile /n",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("configure.flexfs").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for line in ["list nouns", "create volume a --name b", "create volume a --secretFile /s"] {
            assert!(Cli::try_parse_from(std::iter::once("configure.flexfs").chain(line.split(' '))).is_err());
        }
    }
}
