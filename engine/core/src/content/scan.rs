//! One pass over a body for the values that filters ask for.
//!
//! The paths stand in order, so that those below one place of the body are a
//! range: the pass carries ranges, looks each name up in its range, skips what
//! nobody asked for, and stops when nothing is open any more. No tree is built.
//!
//! What is found, or seen to be missing, before a place where the body is no
//! JSON counts, whoever else asks for what: one filter's paths never change what
//! another one sees.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Filter;
use super::path::Path;
use super::value::Value;

/// A body as far as filters ask for it.
#[derive(Debug)]
pub struct Body<'a, 'f> {
    /// In order, each once.
    wanted: Vec<&'f Path>,
    /// One for each.
    slots: Vec<Slot<'a>>,
}

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Slot<'a> {
    /// Not looked for, or the body could not be read so far.
    Open,
    Missing,
    Found(Value<'a>),
}

impl<'a, 'f> Body<'a, 'f> {
    /// Reads what these filters ask for.
    pub fn scan(filters: impl IntoIterator<Item = &'f Filter>, body: &'a [u8]) -> Self {
        let mut wanted = Vec::new();
        for filter in filters {
            filter.paths(&mut wanted);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut slots: Vec<_> = wanted.iter().map(|_| Slot::Open).collect();
        fill(&wanted, &mut slots, body);
        Self { wanted, slots }
    }

    pub(super) fn slot(&self, path: &Path) -> &Slot<'a> {
        match self.wanted.binary_search(&path) {
            Ok(place) => &self.slots[place],
            Err(_) => &Slot::Open,
        }
    }
}

/// Fills the slots of these paths, which stand in order.
fn fill<'a>(wanted: &[&Path], slots: &mut [Slot<'a>], body: &'a [u8]) {
    if wanted.is_empty() {
        return;
    }
    let mut scan = Scan {
        open: wanted.len(),
        wanted,
        slots,
    };
    let all = 0..wanted.len();
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = scan.at(all.clone(), 0).deserialize(&mut json);
    if read.and_then(|()| json.end()).is_ok() {
        // Only the end tells that the rest is not there.
        scan.missing(all);
    } else if scan.open > 0 {
        fill_hidden(wanted, slots, body);
    }
}

/// A value that is asked for is read whole, so one that breaks off hides what
/// others ask for inside it: they get a pass of their own.
fn fill_hidden<'a>(wanted: &[&Path], slots: &mut [Slot<'a>], body: &'a [u8]) {
    let mut above = wanted[0];
    let mut hidden = Vec::new();
    for (place, path) in wanted.iter().enumerate().skip(1) {
        if !path.is_below(above) {
            above = path;
        } else if matches!(slots[place], Slot::Open) {
            hidden.push(place);
        }
    }
    let below: Vec<_> = hidden.iter().map(|&place| wanted[place]).collect();
    let mut found: Vec<_> = below.iter().map(|_| Slot::Open).collect();
    fill(&below, &mut found, body);
    for (place, slot) in hidden.into_iter().zip(found) {
        slots[place] = slot;
    }
}

struct Scan<'s, 'a, 'f> {
    wanted: &'s [&'f Path],
    slots: &'s mut [Slot<'a>],
    /// How many are open.
    open: usize,
}

impl<'s, 'a, 'f> Scan<'s, 'a, 'f> {
    fn at(&mut self, range: Range<usize>, depth: usize) -> At<'_, 's, 'a, 'f> {
        At {
            scan: self,
            range,
            depth,
        }
    }

    fn set(&mut self, place: usize, slot: Slot<'a>) {
        if matches!(self.slots[place], Slot::Open) {
            self.slots[place] = slot;
            self.open -= 1;
        }
    }

    fn missing(&mut self, range: Range<usize>) {
        range.for_each(|place| self.set(place, Slot::Missing));
    }

    fn is_open(&self, range: &Range<usize>) -> bool {
        let first = self.slots.get(range.clone()).and_then(<[_]>::first);
        matches!(first, Some(Slot::Open))
    }

    /// Ends the whole pass by an error when nothing is open.
    fn go_on<E: Error>(&self) -> Result<(), E> {
        match self.open {
            0 => Err(E::custom("nothing more is asked for")),
            _ => Ok(()),
        }
    }

    /// The wanted paths of a range that go on with this name.
    fn below(&self, range: &Range<usize>, depth: usize, name: &str) -> Range<usize> {
        let paths = &self.wanted[range.clone()];
        let start = paths.partition_point(|path| path.name(depth) < name);
        let count = paths[start..].partition_point(|path| path.name(depth) == name);
        let start = range.start + start;
        start..start + count
    }
}

/// The pass at one value: the wanted paths that lead here or below.
struct At<'r, 's, 'a, 'f> {
    scan: &'r mut Scan<'s, 'a, 'f>,
    range: Range<usize>,
    /// Names that led here.
    depth: usize,
}

impl At<'_, '_, '_, '_> {
    /// This value is read and holds nothing more of what is wanted.
    fn done<E>(self) -> Result<(), E> {
        // Of the whole body that is only so when it ends well.
        if self.depth > 0 {
            self.scan.missing(self.range);
        }
        Ok(())
    }

    /// The elements that are wanted, in order, and what is wanted of each.
    fn elements(&self) -> Vec<(usize, Range<usize>)> {
        let mut elements = Vec::new();
        let mut rest = self.range.clone();
        while !rest.is_empty() {
            let path = self.scan.wanted[rest.start];
            let below = self.scan.below(&rest, self.depth, path.name(self.depth));
            rest.start = below.end;
            elements.extend(path.element(self.depth).map(|number| (number, below)));
        }
        elements.sort_unstable_by_key(|(number, _)| *number);
        elements
    }
}

impl<'a> DeserializeSeed<'a> for At<'_, '_, 'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        let Range { start, end } = self.range;
        if self.scan.wanted[start].len() > self.depth {
            return json.deserialize_any(self);
        }
        let raw: &'a RawValue = serde::Deserialize::deserialize(json)?;
        self.scan.set(start, Slot::Found(Value::read(raw)));
        if start + 1 == end {
            return Ok(());
        }
        // What lies below is wanted too.
        let mut inside = serde_json::Deserializer::from_str(raw.get());
        let below = self.scan.at(start + 1..end, self.depth);
        below.deserialize(&mut inside).map_err(D::Error::custom)
    }
}

impl<'a> Visitor<'a> for At<'_, '_, 'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { scan, range, depth } = self;
        loop {
            let name = Name {
                scan,
                range: &range,
                depth,
            };
            let Some(below) = map.next_key_seed(name)? else {
                return At { scan, range, depth }.done();
            };
            // A name that stands a second time is closed by the first.
            if scan.is_open(&below) {
                map.next_value_seed(scan.at(below, depth + 1))?;
                scan.go_on()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut elements = self.elements().into_iter().peekable();
        let Self { scan, range, depth } = self;
        for number in 0.. {
            let there = match elements.next_if(|(wanted, _)| *wanted == number) {
                Some((_, below)) => seq.next_element_seed(scan.at(below, depth + 1))?,
                None => seq.next_element::<IgnoredAny>()?.map(drop),
            };
            if there.is_none() {
                break;
            }
            scan.go_on()?;
        }
        At { scan, range, depth }.done()
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.done()
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.done()
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.done()
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.done()
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.done()
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.done()
    }
}

/// The wanted paths that go on with the name that is read.
struct Name<'r, 's, 'a, 'f> {
    scan: &'r Scan<'s, 'a, 'f>,
    range: &'r Range<usize>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_, '_, '_, '_> {
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Range<usize>, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_, '_, '_, '_> {
    type Value = Range<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Range<usize>, E> {
        Ok(self.scan.below(self.range, self.depth, name))
    }
}
