//! Mount flags as text: the names of the command line, comma separated.

use flexfs_wire::settings::Flags;

/// Parses `ro,noExec,noSUID,noATime,noACL,rootSquash,umask=0027`; case does not matter, an empty text is no flag.
///
/// # Errors
/// A sentence that names the flag it does not know and lists those it does.
pub fn parse(text: &str) -> Result<Flags, String> {
    let mut flags = Flags::default();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "ro" => flags.ro = true,
            "noexec" => flags.no_exec = true,
            "nosuid" => flags.no_suid = true,
            "noatime" => flags.no_atime = true,
            "noacl" => flags.no_acl = true,
            "rootsquash" => flags.root_squash = true,
            other => match other.strip_prefix("umask=").map(|digits| u16::from_str_radix(digits, 8)) {
                Some(Ok(umask)) => flags.umask = umask,
                Some(Err(_)) => return Err("umask must be octal, as in umask=0027".to_owned()),
                None => {
                    let name: String = name.chars().take(40).collect();
                    return Err(format!(
                        "unknown flag {name:?}; known are ro, noExec, noSUID, noATime, noACL, rootSquash, umask=OCTAL"
                    ));
                }
            },
        }
    }
    check(flags)
}

/// Refuses values no mount could carry out.
///
/// # Errors
/// A sentence with the allowed range.
pub fn check(flags: Flags) -> Result<Flags, String> {
    if flags.umask > 0o777 { Err("umask must be at most 0777".to_owned()) } else { Ok(flags) }
}

/// The inverse of [`parse`].
#[must_use]
pub fn text(flags: Flags) -> String {
    let names = [
        (flags.ro, "ro"),
        (flags.no_exec, "noExec"),
        (flags.no_suid, "noSUID"),
        (flags.no_atime, "noATime"),
        (flags.no_acl, "noACL"),
        (flags.root_squash, "rootSquash"),
    ];
    let mut set: Vec<String> =
        names.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()).collect();
    if flags.umask != 0 {
        set.push(format!("umask={:04o}", flags.umask));
    }
    set.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roundtrip() {
        for text in ["", "ro", "ro,noExec,noSUID,noATime,noACL,rootSquash,umask=0027"] {
            assert_eq!(super::text(parse(text).unwrap()), text);
        }
        assert_eq!(parse(" RO , noexec").unwrap(), Flags { ro: true, no_exec: true, ..Flags::default() });
        for text in ["rw", "umask=9", "umask=7777", "umask="] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
