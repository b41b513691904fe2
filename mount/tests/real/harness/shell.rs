//! Words for a shell.

use std::ffi::OsStr;

/// A command line of these words, whatever stands in them.
pub(crate) fn line<W: AsRef<OsStr>>(words: &[W]) -> String {
    let quoted = words.iter().map(|word| {
        let word = word.as_ref().to_str().expect("tests have names in UTF-8");
        format!("'{}'", word.replace('\'', r"'\''"))
    });
    quoted.collect::<Vec<_>>().join(" ")
}
