//! Answers on standard output: JSON as admin gave it, or aligned columns.

use std::io::Write as _;

use serde_json::Value;

use crate::configure::text::{show_duration, show_size, show_time};

/// How a value is shown to a person.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// As it is.
    Plain,
    /// Bytes.
    Size,
    /// Seconds; -1 = for ever.
    Duration,
    /// Seconds since 1970.
    Time,
    /// A number where 0 means "no limit".
    Limit,
    /// Bytes where 0 means "no limit".
    SizeLimit,
    /// Mount flags.
    Flags,
    /// A list of tokens: how many.
    Tokens,
    /// A list of names.
    Names,
}

/// One column of a table, one line of a single object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Key in JSON.
    pub(crate) key: &'static str,
    /// Looks.
    pub(crate) look: Look,
    /// Whether tables have it; single objects show every column.
    pub(crate) in_table: bool,
}

/// A column of tables and single objects.
pub(crate) const fn column(key: &'static str, look: Look) -> Column {
    Column { key, look, in_table: true }
}

/// A line of single objects only.
pub(crate) const fn detail(key: &'static str, look: Look) -> Column {
    Column { key, look, in_table: false }
}

/// Writes to standard output. A reader that has seen enough, as `head` has, ends the program without a word.
pub(crate) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("configure.flexfs: standard output: {error}");
        }
        std::process::exit(1);
    }
}

/// Prints JSON, indented.
pub(crate) fn json(value: &Value) {
    out(&format!("{value:#}\n"));
}

/// Prints rows under their headings.
pub(crate) fn table(rows: &[Value], columns: &[Column]) {
    out(&table_text(rows, columns));
}

fn table_text(rows: &[Value], columns: &[Column]) -> String {
    let columns: Vec<&Column> = columns.iter().filter(|column| column.in_table).collect();
    let mut cells = vec![columns.iter().map(|column| heading(column.key)).collect::<Vec<_>>()];
    cells.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| cells.iter().map(|row: &Vec<String>| row[index].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in cells {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints one object, a line a field; its token last, by itself, so that it is easily taken.
pub(crate) fn object(row: &Value, columns: &[Column]) {
    let width = columns.iter().map(|column| column.key.len()).max().unwrap_or(0);
    for column in columns {
        out(&format!("{:<width$}  {}\n", column.key, cell(row, column)));
        if matches!(column.look, Look::Tokens) {
            for token in row[column.key].as_array().into_iter().flatten() {
                out(&format!("{:<width$}  {}\n", "", token_line(token)));
            }
        }
    }
    token(row);
}

/// Prints the token of an answer, if there is one.
pub(crate) fn token(row: &Value) {
    if let (Some(token), Some(id)) = (row["token"].as_str(), row["tokenId"].as_str()) {
        eprintln!("Token {id}, shown only now:");
        out(&format!("{token}\n"));
    }
}

fn token_line(token: &Value) -> String {
    let time = |key: &str| token[key].as_i64().map_or_else(|| "never".to_owned(), show_time);
    let by = token["lastUsedBy"].as_str().unwrap_or_default();
    let id = token["id"].as_str().unwrap_or_default();
    let used = format!("last used {} {by}", time("lastUsedAt"));
    format!("{id}  created {}  expires {}  {}", time("createdAt"), time("expiresAt"), used.trim_end())
}

fn heading(key: &str) -> String {
    let mut text = String::new();
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            text.push(' ');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

fn cell(row: &Value, column: &Column) -> String {
    let value = &row[column.key];
    let number = value.as_i64();
    let shown = match (column.look, number) {
        (Look::Size, Some(bytes)) => show_size(bytes.unsigned_abs()),
        (Look::Duration, Some(seconds)) => show_duration(seconds),
        (Look::Time, Some(seconds)) => show_time(seconds),
        (Look::Limit | Look::SizeLimit, Some(0)) => "none".to_owned(),
        (Look::SizeLimit, Some(bytes)) => show_size(bytes.unsigned_abs()),
        (Look::Flags, _) if !value.is_null() => {
            serde_json::from_value(value.clone()).map_or_else(|_| value.to_string(), crate::flags::text)
        }
        (Look::Tokens, _) => value.as_array().map_or(0, Vec::len).to_string(),
        (Look::Names, _) => {
            let names: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            names.join(",")
        }
        _ => match value {
            Value::Null => String::new(),
            Value::String(text) => text.replace(['\n', '\t'], " "),
            other => other.to_string(),
        },
    };
    if shown.is_empty() { "-".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned() {
        let rows = [
            json!({"name": "a", "blockSize": 4_194_304, "flags": {"ro": true}}),
            json!({"name": "longer", "blockSize": 262_144, "notes": "x"}),
        ];
        let columns = [
            column("name", Look::Plain),
            column("blockSize", Look::Size),
            column("flags", Look::Flags),
            detail("notes", Look::Plain),
        ];
        assert_eq!(
            table_text(&rows, &columns),
            "NAME    BLOCK SIZE  FLAGS\na       4 MiB       ro\nlonger  256 KiB     -\n"
        );
    }
}
