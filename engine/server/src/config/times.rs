//! How times are written in the configuration.

use std::time::Duration;

use posthaste_core::time::Timestamp;
use serde::Deserialize as _;

/// A UTC time in RFC 3339 form.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next()?.parse().ok()?;
    let minute: i64 = clock.next()?.parse().ok()?;
    let second: f64 = clock.next()?.parse().ok()?;
    let in_range = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..61.0).contains(&second);
    if !in_range {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60;
    let seconds = u64::try_from(seconds).ok()?;
    let fraction = Duration::try_from_secs_f64(second).ok()?;
    Some(Timestamp::from_millis(seconds * 1_000).after(fraction))
}

/// A time in RFC 3339 form, to the second.
pub fn format_rfc3339(time: Timestamp) -> String {
    let seconds = time.as_secs();
    let (days, clock) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A time in RFC 3339 form, to the millisecond.
pub fn format_rfc3339_millis(time: Timestamp) -> String {
    let mut text = format_rfc3339(time);
    text.pop();
    format!("{text}.{:03}Z", time.as_millis() % 1_000)
}

/// Year, month and day so many days after 1970-01-01 (the same paper,
/// `civil_from_days`).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `500ms`, `25s`, `10m`, `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wanted = || format!("`{text}`: expected a number and a unit, such as \"500ms\" or \"25s\"");
    let number: u64 = number.parse().map_err(|_| wanted())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wanted()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(wanted)
}

/// The same, in the largest unit that says it whole.
pub fn format_duration(span: Duration) -> String {
    let millis = span.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or(&(1, "ms"));
    format!("{}{name}", millis / unit)
}

pub(super) fn duration<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let at = |text: &str| parse_rfc3339(text).map(Timestamp::as_millis);
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(at("2026-01-31T08:00:00.5Z"), Some(1_769_846_400_500));
        assert_eq!(at("2026-13-01T00:00:00Z"), None);
        assert_eq!(at("2026-01-31"), None);
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59Z",
            "2026-12-31T08:01:02Z",
        ] {
            assert_eq!(
                parse_rfc3339(text).map(format_rfc3339).as_deref(),
                Some(text)
            );
        }
        let text = "2026-01-31T08:00:00.078Z";
        assert_eq!(
            parse_rfc3339(text).map(format_rfc3339_millis).as_deref(),
            Some(text)
        );
        for day in 0..80_000 {
            let (year, month, date) = civil_from_days(day);
            let signed = |n: u64| i64::try_from(n).unwrap();
            let back = days_from_civil(signed(year), signed(month), signed(date));
            assert_eq!(back, signed(day));
        }
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["2h", "90m", "71s", "1500ms", "61001ms"] {
            assert_eq!(
                parse_duration(text).map(format_duration).as_deref(),
                Ok(text)
            );
        }
        assert!(parse_duration("2").is_err() && parse_duration("s").is_err());
    }
}
