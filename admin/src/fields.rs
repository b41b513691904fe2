//! Bodies of requests: a JSON object, taken apart field by field, so that every error names its field.

use flexfs_wire::limits::NAME_SEALED_BYTES_MAX;
use flexfs_wire::settings::Flags;
use serde_json::{Map, Value};

use crate::flags;
use crate::problem::Problem;

/// Longest name of anything, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;
/// Longest note, in bytes.
pub(crate) const NOTES_BYTES_MAX: usize = 1024;
/// Longest path, in bytes.
pub(crate) const PATH_BYTES_MAX: usize = 4095;

/// What is left of a body.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a body; an empty one is an empty object.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Problem::request("the body must be a JSON object")),
            Err(error) => Err(Problem::request(format!(
                "the body is not JSON (line {}, column {})",
                error.line(),
                error.column()
            ))),
        }
    }

    /// A text of at most `bytes_max` bytes without control characters.
    pub(crate) fn text(&mut self, key: &str, bytes_max: usize) -> Result<Option<String>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() > bytes_max => {
                Err(Problem::field(key, format!("longer than {bytes_max} bytes")))
            }
            Some(Value::String(text)) if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => {
                Err(Problem::field(key, "control characters are not taken"))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::field(key, "must be a text")),
        }
    }

    /// A name: letters, digits, `.`, `_`, `-`; not of the form of an id.
    pub(crate) fn name(&mut self, key: &str) -> Result<Option<String>, Problem> {
        let Some(name) = self.text(key, NAME_BYTES_MAX)? else { return Ok(None) };
        check_name(&name).map_err(|text| Problem::field(key, text))?;
        Ok(Some(name))
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn number(&mut self, key: &str, least: i64, most: i64) -> Result<Option<i64>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_i64().filter(|n| (least..=most).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::field(key, format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// True or false.
    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(Problem::field(key, "must be true or false")),
        }
    }

    /// Mount flags: an object of them, or their names in one text, `"ro,noExec,umask=0027"`.
    pub(crate) fn flags(&mut self, key: &str) -> Result<Option<Flags>, Problem> {
        let parsed = match self.take(key) {
            None => return Ok(None),
            Some(Value::String(text)) => flags::parse(&text),
            Some(value @ Value::Object(_)) => {
                serde_json::from_value(value).map_err(|error| error.to_string()).and_then(flags::check)
            }
            Some(_) => Err("must be an object of flags or a text like \"ro,noExec\"".to_owned()),
        };
        parsed.map(Some).map_err(|text| Problem::field(key, text))
    }

    /// An object of a known form.
    pub(crate) fn object<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        serde_json::from_value(value).map(Some).map_err(|error| Problem::field(key, error.to_string()))
    }

    /// A time in seconds since 1970; `null` takes it away.
    pub(crate) fn time(&mut self, key: &str) -> Result<Option<Option<i64>>, Problem> {
        if self.0.get(key).is_some_and(Value::is_null) {
            self.0.remove(key);
            return Ok(Some(None));
        }
        Ok(self.number(key, 0, i64::from(u32::MAX))?.map(Some))
    }

    /// A field that is fixed once the object exists.
    pub(crate) fn fixed(&mut self, keys: &[&str]) -> Result<(), Problem> {
        match keys.iter().find(|key| self.0.contains_key(**key)) {
            None => Ok(()),
            Some(key) => Err(Problem::field(*key, "cannot be changed after creation")),
        }
    }

    /// Refuses what nobody took: a typing error would otherwise go unnoticed.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => {
                let key: String = key.chars().take(40).collect();
                Err(Problem::field(key, "unknown field"))
            }
        }
    }

    /// `null` stands for "not given".
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }
}

/// A field that creation cannot do without.
pub(crate) fn need<T>(key: &str, value: Option<T>) -> Result<T, Problem> {
    value.ok_or_else(|| Problem::field(key, "is needed"))
}

/// Checks a name; the text says what names look like.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || !name.bytes().all(ok) || name.starts_with(['.', '-']) {
        return Err("must be letters, digits, '.', '_' and '-', not beginning with '.' or '-'");
    }
    if uuid::Uuid::try_parse(name).is_ok() {
        return Err("must not look like an id");
    }
    Ok(())
}

/// Normalizes the scope of a token: absolute, no `.`, no `..`, no doubled or trailing `/`.
pub(crate) fn check_scope(path: &str) -> Result<String, &'static str> {
    if path.is_empty() || path == "/" {
        return Ok("/".to_owned());
    }
    let Some(rest) = path.strip_prefix('/') else { return Err("must be an absolute path: begin with /") };
    if path.contains('\0') {
        return Err("must not hold a NUL");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for part in rest.split('/') {
        match part {
            "" => return Err("must not hold an empty part (//)"),
            "." | ".." => return Err("must not hold the parts . and .."),
            // Of an encrypted volume they are longer than those that programs give.
            long if long.len() > NAME_SEALED_BYTES_MAX => {
                return Err("must not hold a part longer than 362 bytes");
            }
            _ => {}
        }
    }
    Ok(format!("/{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_names_its_field() {
        let mut fields =
            Fields::parse(br#"{"a":1,"b":"x","c":null,"d":[],"flags":"ro,nope","z":0}"#).unwrap();
        let told = |problem: Problem| serde_json::to_value(&problem).unwrap()["field"].clone();
        assert_eq!(told(fields.text("a", 9).unwrap_err()), "a");
        assert_eq!(told(fields.number("b", 0, 9).unwrap_err()), "b");
        assert_eq!(fields.time("c").unwrap(), Some(None));
        assert_eq!(told(fields.flag("d").unwrap_err()), "d");
        assert_eq!(told(fields.flags("flags").unwrap_err()), "flags");
        assert_eq!(told(fields.finish().unwrap_err()), "z");
        assert!(Fields::parse(b"[1]").is_err());
        assert!(Fields::parse(b"{").is_err());
    }

    #[test]
    fn scopes() {
        for (path, normal) in
            [("", "/"), ("/", "/"), ("/a", "/a"), ("/a/b/", "/a/b"), ("/ä b/c..d", "/ä b/c..d")]
        {
            assert_eq!(check_scope(path).unwrap(), normal);
        }
        for path in ["a", "./a", "/..", "/a/../b", "/./a", "//", "//a", "/a//b", "/a\0b", "/a//"] {
            assert!(check_scope(path).is_err(), "{path}");
        }
        assert!(check_scope(&format!("/{}", "a".repeat(363))).is_err());
    }

    #[test]
    fn names() {
        for name in ["a", "my-volume_1.x", "Z9"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".a", "-a", "a b", "a/b", "ä", "9b2cf8a0-0000-4000-8000-000000000000"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
