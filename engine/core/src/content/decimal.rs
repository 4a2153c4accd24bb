//! A JSON number by its exact decimal value: no rounding, any length.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// 0.`digits` times ten to the `magnitude`. Zero has no digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    negative: bool,
    /// Saturates: two numbers past 10 to the 2^63 are of one size.
    magnitude: i64,
    /// Neither first nor last is `0`.
    digits: Cow<'a, str>,
}

impl<'a> Decimal<'a> {
    /// From the text of a JSON number.
    pub(super) fn read(text: &'a str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let places = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
        let (digits, shift) = if fraction.is_empty() {
            (Cow::Borrowed(whole.trim_end_matches('0')), places(whole))
        } else if whole.is_empty() {
            let digits = fraction.trim_start_matches('0');
            (Cow::Borrowed(digits), places(digits) - places(fraction))
        } else {
            (Cow::Owned([whole, fraction].concat()), places(whole))
        };
        if digits.is_empty() {
            return Self {
                negative: false,
                magnitude: 0,
                digits,
            };
        }
        Self {
            negative,
            magnitude: saturating(exponent).saturating_add(shift),
            digits,
        }
    }

    pub(super) fn into_owned(self) -> Decimal<'static> {
        Decimal {
            digits: Cow::Owned(self.digits.into_owned()),
            ..self
        }
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    pub(super) fn order(&self, other: &Decimal<'_>) -> Ordering {
        self.sign().cmp(&other.sign()).then_with(|| {
            // Without zeros at the end, text order is the order of fractions.
            let size = self.magnitude.cmp(&other.magnitude);
            let size = size.then_with(|| self.digits.as_ref().cmp(other.digits.as_ref()));
            if self.negative { size.reverse() } else { size }
        })
    }
}

fn saturating(exponent: &str) -> i64 {
    let past = match exponent.starts_with('-') {
        true => i64::MIN,
        false => i64::MAX,
    };
    exponent.parse().unwrap_or(past)
}

/// As people write it, within reason.
impl fmt::Display for Decimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        let digits = &*self.digits;
        match usize::try_from(self.magnitude) {
            _ if digits.is_empty() => f.write_str("0"),
            Ok(0) => write!(f, "0.{digits}"),
            Ok(whole) if whole >= digits.len() && whole <= 40 => {
                write!(f, "{digits}{:0<1$}", "", whole - digits.len())
            }
            Ok(whole) if whole < digits.len() => {
                write!(f, "{}.{}", &digits[..whole], &digits[whole..])
            }
            _ => write!(f, "0.{digits}e{}", self.magnitude),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_exact_however_they_are_written() {
        let rising: [&[&str]; 14] = [
            &["-1e400"],
            &["-12.5", "-1.25e1", "-0012.50"],
            &["-12"],
            &["-0.001", "-1e-3"],
            &["0", "-0", "0.000", "0e99", "-0.0e-7"],
            &["1e-400", "0.1e-399"],
            &["0.05", "5e-2", "5.0E-02"],
            &["0.5", "0.50"],
            &["1", "1.0", "10e-1", "0.1e+1"],
            &["100", "1e2", "100.000"],
            &["9007199254740992"],
            &["9007199254740993", "9007199254740993.0"],
            &["123456789012345678901234567890"],
            &["1e99999999999999999999"],
        ];
        for (place, same) in rising.iter().enumerate() {
            for text in *same {
                for (other_place, others) in rising.iter().enumerate() {
                    for other in *others {
                        let order = Decimal::read(text).order(&Decimal::read(other));
                        assert_eq!(order, place.cmp(&other_place), "{text} and {other}");
                        let equal = Decimal::read(text) == Decimal::read(other);
                        assert_eq!(equal, order.is_eq(), "{text} and {other}");
                    }
                }
            }
        }
    }

    #[test]
    fn it_is_shown_as_people_write_it() {
        for (text, shown) in [
            ("-12.50", "-12.5"),
            ("0", "0"),
            ("100", "100"),
            ("1e2", "100"),
            ("0.25", "0.25"),
            ("1e-3", "0.1e-2"),
            ("1e100", "0.1e101"),
        ] {
            assert_eq!(Decimal::read(text).to_string(), shown);
        }
    }
}
