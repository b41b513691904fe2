//! Sizes, durations and times as people write and read them.

use std::time::SystemTime;

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the command line of a person, who says `in 30 days`")]
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Parses `4194304`, `4M`, `4MiB`: powers of 1024.
///
/// # Errors
/// A sentence with an example.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("a size is a number with K, M, G or T behind it, as in 4M".to_owned()),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a size is a number with K, M, G or T behind it, as in 4M".to_owned())
}

/// Parses `90`, `90s`, `15m`, `24h`, `7d`, `2w` into seconds.
///
/// # Errors
/// A sentence with an example.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => 0,
    };
    let number = digits.parse::<i64>().ok().filter(|_| seconds != 0);
    number
        .and_then(|number| number.checked_mul(seconds))
        .ok_or_else(|| "a duration is a number with s, m, h, d or w behind it, as in 24h".to_owned())
}

/// Parses a retention: a duration, or `forever`.
///
/// # Errors
/// A sentence with an example.
pub fn parse_retention(text: &str) -> Result<i64, String> {
    if text == "forever" { Ok(-1) } else { parse_duration(text) }
}

/// Parses an end of validity: a duration from now, `YYYY-MM-DD`, or `YYYY-MM-DDTHH:MM:SSZ`, into seconds since 1970.
///
/// # Errors
/// A sentence with an example.
pub fn parse_end(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = parse_duration(text) {
        return Ok(now().saturating_add(seconds));
    }
    parse_time(text)
        .ok_or_else(|| "an end is 30d (from now), 2030-01-31 or 2030-01-31T12:00:00Z (UTC)".to_owned())
}

fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let number = |part: &str, width: usize| {
        (part.len() == width && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<i64>().ok())?
    };
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let mut time = time.split(':');
    let (hour, minute, second) =
        (number(time.next()?, 2)?, number(time.next()?, 2)?, number(time.next()?, 2)?);
    if date.next().is_some() || time.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that does not exist (31 April) comes back as another one.
    (civil_from_days(days) == (year, month, day))
        .then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// `2026-11-24 12:05Z`.
#[must_use]
pub fn show_time(seconds: i64) -> String {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let rest = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}Z", rest / 3600, rest / 60 % 60)
}

/// `4 MiB`; exact, so a size that is no multiple stays in the smaller unit.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value != 0 && value.is_multiple_of(1024) && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", units[unit])
}

/// `7d`; `forever` for -1.
#[must_use]
pub fn show_duration(seconds: i64) -> String {
    if seconds < 0 {
        return "forever".to_owned();
    }
    for (size, unit) in [(86_400, "d"), (3600, "h"), (60, "m")] {
        if seconds != 0 && seconds % size == 0 {
            return format!("{}{unit}", seconds / size);
        }
    }
    format!("{seconds}s")
}

/// Days since 1970-01-01 of a date (proleptic Gregorian; eras of 400 years are 146 097 days).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size("4MiB").unwrap(), 4 << 20);
        assert_eq!(parse_size("256K").unwrap(), 256 << 10);
        assert_eq!(parse_size("7").unwrap(), 7);
        assert_eq!(parse_duration("24h").unwrap(), 86_400);
        assert_eq!(parse_retention("forever").unwrap(), -1);
        for text in ["", "M", "4X", "-1", "99999999999999999999", "99999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["", "d", "4y", "-1d", "9999999999999999w"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(show_size(4 << 20), "4 MiB");
        assert_eq!(show_size(1025), "1025 B");
        assert_eq!(show_duration(7 * 86_400), "7d");
        assert_eq!(show_duration(90), "90s");
    }

    #[test]
    fn times() {
        assert_eq!(parse_end("1970-01-02").unwrap(), 86_400);
        assert_eq!(parse_end("2000-02-29T12:34:56Z").unwrap(), 951_827_696);
        assert_eq!(show_time(951_827_696), "2000-02-29 12:34Z");
        for text in [
            "2001-02-29",
            "2001-13-01",
            "2001-00-10",
            "2001-1-1",
            "2001-01-01T25:00:00Z",
            "2001-01-01T00:00:00",
            "soon",
        ] {
            assert!(parse_end(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_roundtrip(days in -200_000i64..2_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
        }

        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = (parse_size(&text), parse_retention(&text), parse_end(&text));
        }
    }
}
