//! The way to a value in a body.

use std::fmt;

use crate::limits::FILTER_PATH_NAMES_MAX;

/// Names of members, or numbers of elements, from the outside in; at least one.
/// Paths in order stand as a tree does: after each comes what lies below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(Vec<Box<str>>);

impl Path {
    /// Dotted names, or a JSON pointer (RFC 6901) where it begins with `/`. The
    /// error says what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let names = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect::<Result<_, _>>()?,
            None => text
                .split('.')
                .map(|name| match name {
                    "" => Err(
                        "expected names separated by dots, such as `data.amount`, or a JSON \
                         pointer, such as `/data/amount`"
                            .to_owned(),
                    ),
                    name => Ok(name.into()),
                })
                .collect::<Result<Vec<_>, _>>()?,
        };
        if names.len() > FILTER_PATH_NAMES_MAX {
            return Err(format!(
                "expected at most {FILTER_PATH_NAMES_MAX} names in a path"
            ));
        }
        Ok(Self(names))
    }

    /// How many names it has.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One of its names.
    pub(super) fn name(&self, depth: usize) -> &str {
        &self.0[depth]
    }

    /// Whether it goes on from where the other ends.
    pub(super) fn is_below(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// One of its names as the number of an element.
    pub(super) fn element(&self, depth: usize) -> Option<usize> {
        let name = self.name(depth);
        let canonical =
            name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
        canonical.then(|| name.parse().ok())?
    }
}

fn unescape(name: &str) -> Result<Box<str>, String> {
    let mut parts = name.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (tilde, rest) = match part.as_bytes() {
            [b'0', ..] => ('~', &part[1..]),
            [b'1', ..] => ('/', &part[1..]),
            _ => {
                return Err("expected `~0` for `~` and `~1` for `/` in a JSON pointer".to_owned());
            }
        };
        out.push(tilde);
        out.push_str(rest);
    }
    Ok(out.into())
}

/// As one token of a JSON pointer.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// As a JSON pointer.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|name| write!(f, "/{}", escape(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_lead_there() {
        for (text, pointer) in [
            ("data.amount", "/data/amount"),
            ("/data/amount", "/data/amount"),
            ("a/b", "/a~1b"),
            ("/a.b/~0~1/", "/a.b/~0~1/"),
            ("/", "/"),
            ("/$ref", "/$ref"),
        ] {
            let path = Path::parse(text).unwrap();
            assert_eq!(path.to_string(), pointer);
            assert_eq!(Path::parse(pointer), Ok(path));
        }
        for text in ["", ".", "a.", ".a", "a..b", "/~", "/~2", "/a~"] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        assert!(Path::parse(&"/a".repeat(FILTER_PATH_NAMES_MAX)).is_ok());
        assert!(Path::parse(&"/a".repeat(FILTER_PATH_NAMES_MAX + 1)).is_err());
    }

    #[test]
    fn only_a_plain_number_is_an_element() {
        let element = |text| Path::parse(text).unwrap().element(0);
        assert_eq!(element("/0"), Some(0));
        assert_eq!(element("/17"), Some(17));
        for text in [
            "/",
            "/01",
            "/-",
            "/-1",
            "/+1",
            "/1a",
            "/99999999999999999999999",
        ] {
            assert_eq!(element(text), None, "{text}");
        }
    }
}
