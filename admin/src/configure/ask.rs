//! Prompts for what the command line left out, where there is a person to ask.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use flexfs_wire::token::{Token, TokenKind};
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
