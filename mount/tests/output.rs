//! What the program prints, and to whom.
#![forbid(unsafe_code)]

use std::process::{Command, Stdio};

/// `mount.flexfs version | head -0`: the reader is gone before anything is written.
#[test]
fn a_reader_that_has_gone_is_no_accident() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let program = env!("CARGO_BIN_EXE_mount-flexfs");
    let ran = Command::new(program).arg("version").stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "");
}
