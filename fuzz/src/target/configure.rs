//! configure.flexfs: any arguments, and the texts of sizes, durations, times, flags and addresses.

use clap::Parser as _;
use flexfs_admin::configure::cli::Cli;
use flexfs_admin::configure::text::{
    parse_duration, parse_end, parse_retention, parse_size, show_duration, show_size, show_time,
};
use flexfs_admin::flags;
use flexfs_wire::creds::AdminAddr;

/// The first byte chooses: a command line (split at newlines), or one text.
pub fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if choice & 1 == 0 {
        let line = std::iter::once("configure.flexfs").chain(text.split('\n'));
        if let Err(error) = Cli::try_parse_from(line) {
            assert!(!error.to_string().is_empty());
        }
    } else {
        values(text);
    }
}

/// What is taken is shown in a form that is taken for the same.
fn values(text: &str) {
    if let Ok(size) = parse_size(text) {
        assert_eq!(parse_size(&show_size(size)), Ok(size), "{text:?}");
    }
    if let Ok(seconds) = parse_duration(text) {
        assert!(seconds >= 0, "{text:?}");
        assert_eq!(parse_duration(&show_duration(seconds)), Ok(seconds), "{text:?}");
        assert_eq!(parse_retention(text), Ok(seconds));
    }
    if let Ok(end) = parse_end(text)
        && text.contains('-')
    {
        assert!(show_time(end).starts_with(&text[..10]), "{text:?} became {}", show_time(end));
    }
    if let Ok(set) = flags::parse(text) {
        assert!(set.umask <= 0o777);
        assert_eq!(flags::parse(&flags::text(set)), Ok(set), "{text:?}");
    }
    if let Ok(addr) = AdminAddr::parse(text) {
        let shown = addr.to_string();
        let again = AdminAddr::parse(&shown).expect("what we show, we take");
        assert_eq!((again.host(), again.port(), again.to_string()), (addr.host(), addr.port(), shown));
    }
}
