//! Prompts for what the command line left out, where there is a person to ask.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use flexfs_wire::cipher::check_secret;
use flexfs_wire::creds_file;
use flexfs_wire::token::{Secret, Token, TokenKind};
use zeroize::Zeroizing;

/// Longest token file, bytes: a token, a line end, and room for a slip.
const TOKEN_FILE_BYTES_MAX: usize = 4096;

/// The value given, or the answer to a prompt.
///
/// # Errors
/// Nothing was given and there is nobody to ask.
pub(crate) fn text(given: Option<String>, what: &str, flag: &str) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!("{what} is needed: give it as {flag} (this is no terminal, so it cannot be asked for)");
    }
    loop {
        eprint!("{what}: ");
        io::stderr().flush()?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            bail!("{what} is needed: give it as {flag}");
        }
        if !line.trim().is_empty() {
            return Ok(line.trim().to_owned());
        }
    }
}

/// A token from a file, from standard input, or from a prompt that does not echo; never from the command line,
/// where `ps` would show it.
///
/// # Errors
/// Unreadable, or not a token of `kind`.
pub(crate) fn token(kind: TokenKind, file: Option<&Path>) -> anyhow::Result<Token> {
    let text = match file {
        Some(path) if path != Path::new("-") => {
            let file = std::fs::File::open(path);
            read_bounded(file.with_context(|| format!("read the token from {}", path.display()))?)?
        }
        None if io::stdin().is_terminal() => {
            Zeroizing::new(rpassword::prompt_password(format!("{} token (not shown): ", capital(kind)))?)
        }
        _ => read_bounded(io::stdin().lock())?,
    };
    Ok(Token::parse_kind(kind, text.trim())?)
}

/// The secret of an encrypted volume: from a file that only its owner can read, or from a prompt that does not echo.
///
/// # Errors
/// Unreadable, too short, or nobody to ask.
pub(crate) fn secret(file: Option<&Path>, what: &str) -> anyhow::Result<Secret<String>> {
    if let Some(path) = file {
        return Ok(creds_file::read_secret(path)?);
    }
    if !io::stdin().is_terminal() {
        bail!(
            "{what} is needed: give the file that holds it (this is no terminal, so it cannot be asked for)"
        );
    }
    let secret = Secret::new(rpassword::prompt_password(format!("{what} (not shown): "))?);
    check_secret(secret.expose())?;
    Ok(secret)
}

/// As [`secret`], asked for twice: a slip would lock everybody out.
///
/// # Errors
/// As [`secret`], or the two differ.
pub(crate) fn new_secret(file: Option<&Path>, what: &str) -> anyhow::Result<Secret<String>> {
    let first = secret(file, what)?;
    if file.is_none() && secret(None, "The same once more")?.expose() != first.expose() {
        bail!("the two are not the same; nothing was changed");
    }
    Ok(first)
}

fn capital(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Account => "Account",
        TokenKind::Volume => "Volume",
        TokenKind::Meta => "Meta",
    }
}

fn read_bounded(from: impl io::Read) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_FILE_BYTES_MAX));
    from.take(TOKEN_FILE_BYTES_MAX as u64).read_to_string(&mut text).context("read the token")?;
    Ok(text)
}
