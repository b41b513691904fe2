//! `init creds`: a token and an address, checked with admin, written 0600.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flexfs_wire::creds::{AdminAddr, Creds as WireCreds};
use flexfs_wire::creds_file;
use flexfs_wire::settings::{ValidateAnswer, ValidateRequest};
use flexfs_wire::token::{TOKEN_TEXT_MAX, Token, TokenKind};
use zeroize::Zeroizing;

use super::command::Creds;
use crate::auth::AdminHttp;
use crate::config::default_path;

/// Asks, checks, writes.
///
/// # Errors
/// No token, not a meta token, admin says no, or the file cannot be written.
pub(super) fn creds(flags: &Creds) -> Result<()> {
    let file = match &flags.creds_file {
        Some(file) => file.clone(),
        None => default_path("creds", "--credsFile")?,
    };
    let admin_addr = AdminAddr::parse(&flags.admin_addr)?;
    let text = read_token(flags.token_file.as_deref())?;
    let token = Token::parse_kind(TokenKind::Meta, text.trim()).context("the token was refused")?;
    let creds = WireCreds { admin_addr, token, secret: None };
    check(&creds)?;
    creds_file::store(&file, &creds)?;
    println!("wrote {} (token {})", file.display(), creds.token.id);
    println!("next: meta.flexfs start");
    Ok(())
}

/// Asks admin about a token that cannot be one: the answer shows that ours is good.
fn check(creds: &WireCreds) -> Result<()> {
    let request =
        ValidateRequest { token: String::new(), volume: String::new(), client: "init creds".to_owned() };
    let _: ValidateAnswer = AdminHttp::new(creds)
        .post_json("/v1/tokens/validate", &request)
        .context("admin did not accept the token; nothing was written")?;
    Ok(())
}

fn read_token(file: Option<&Path>) -> Result<Zeroizing<String>> {
    let room = TOKEN_TEXT_MAX as u64 + 64;
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_TEXT_MAX + 64));
    match file {
        Some(file) => {
            std::fs::File::open(file)
                .and_then(|file| file.take(room).read_to_string(&mut text))
                .with_context(|| format!("read the token from {}", file.display()))?;
        }
        None if std::io::stdin().is_terminal() => {
            text = Zeroizing::new(rpassword::prompt_password("meta token: ").context("read the token")?);
        }
        None => {
            std::io::stdin()
                .take(room)
                .read_to_string(&mut text)
                .context("read the token from standard input")?;
        }
    }
    if text.trim().is_empty() {
        bail!("no token was given; `configure.flexfs create meta-store` shows one");
    }
    Ok(text)
}
