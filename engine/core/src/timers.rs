//! Deliveries that wait for their time: 64 bytes each, all included.
//!
//! ```text
//!  by offset  ─┐                 ┌─ a heap of slots an endpoint, by due time
//!  by delivery ┴─> slot: 46 bytes ┘
//! ```
//!
//! A slot is packed into bytes, since millions of them may stand: at most the
//! caps of [`limits`](crate::limits) a partition. One that was handed out leaves
//! its heap and keeps its slot until it is settled. What this refuses to do:
//! decide anything. It is a set with three indices.

use std::collections::HashMap;

use crate::id::{DeliveryId, EndpointId};
use crate::time::Timestamp;

mod index;

use index::{Index, mix};

/// Slots made at once.
const BLOCK: usize = 256;
/// No slot, no place.
const NONE: u32 = u32::MAX;

/// One delivery that is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// To whom.
    pub endpoint: EndpointId,
    /// Attempts made so far.
    pub attempts: u32,
    /// Next attempt; the epoch for "as soon as the endpoint takes it".
    pub due: Timestamp,
    /// Given up after this.
    pub deadline: Timestamp,
}

/// Deliveries that wait for their time, by the offset of their record.
#[derive(Debug, Default)]
pub struct Timers {
    blocks: Vec<Box<[Packed; BLOCK]>>,
    free: Vec<u32>,
    by_offset: Index,
    by_delivery: Index,
    heaps: Vec<Heap>,
    by_endpoint: HashMap<EndpointId, u32>,
    free_heaps: Vec<u32>,
}

/// One endpoint's waiting slots, the earliest due first.
#[derive(Debug)]
struct Heap {
    endpoint: EndpointId,
    /// Slots of the endpoint, those that were handed out too.
    owed: u32,
    slots: Vec<u32>,
}

/// A timer. Times are milliseconds in six bytes (until the year 10889).
#[derive(Debug, Clone, Copy)]
struct Packed {
    offset: [u8; 8],
    delivery: [u8; 16],
    due: [u8; 6],
    deadline: [u8; 6],
    heap: [u8; 4],
    place: [u8; 4],
    attempts: [u8; 2],
}

const EMPTY: Packed = Packed {
    offset: [0; 8],
    delivery: [0; 16],
    due: [0; 6],
    deadline: [0; 6],
    heap: [0; 4],
    place: [0xff; 4],
    attempts: [0; 2],
};

impl Timers {
    /// Lets what is owed at `offset` wait for its time. Answers whether it was
    /// taken: not when its delivery stands already.
    pub fn insert(&mut self, offset: u64, owed: Owed) -> bool {
        if self.offset_of(owed.delivery).is_some() || self.slot_of(offset).is_some() {
            return false;
        }
        let heap = self.heap_of(owed.endpoint);
        self.heaps[wide(heap)].owed += 1;
        let slot = self.new_slot();
        *self.at_mut(slot) = Packed {
            offset: offset.to_be_bytes(),
            delivery: *owed.delivery.as_bytes(),
            due: pack(owed.due),
            deadline: pack(owed.deadline),
            heap: heap.to_be_bytes(),
            attempts: narrow(owed.attempts),
            ..EMPTY
        };
        let blocks = &self.blocks;
        self.by_offset
            .insert(slot, |slot| at(blocks, slot).offset_hash());
        self.by_delivery
            .insert(slot, |slot| at(blocks, slot).delivery_hash());
        self.push(slot);
        true
    }

    /// What is owed at an offset.
    pub fn get(&self, offset: u64) -> Option<Owed> {
        self.slot_of(offset).map(|slot| self.owed(slot))
    }

    /// Whether anything is owed at an offset.
    pub fn contains(&self, offset: u64) -> bool {
        self.slot_of(offset).is_some()
    }

    /// Where a delivery stands.
    pub fn offset_of(&self, delivery: DeliveryId) -> Option<u64> {
        let found = self.by_delivery.find(mix_id(delivery.as_bytes()), |slot| {
            self.at(slot).delivery == *delivery.as_bytes()
        });
        found.map(|slot| self.at(slot).offset())
    }

    /// Takes out what is settled.
    pub fn remove(&mut self, offset: u64) -> Option<Owed> {
        let slot = self.slot_of(offset)?;
        let owed = self.owed(slot);
        self.leave_heap(slot);
        let blocks = &self.blocks;
        self.by_offset
            .remove(slot, |slot| at(blocks, slot).offset_hash());
        self.by_delivery
            .remove(slot, |slot| at(blocks, slot).delivery_hash());
        let heap = self.at(slot).heap();
        let left = &mut self.heaps[wide(heap)];
        left.owed -= 1;
        if left.owed == 0 {
            left.slots = Vec::new();
            self.by_endpoint.remove(&owed.endpoint);
            self.free_heaps.push(heap);
        }
        self.free.push(slot);
        if self.is_empty() {
            *self = Self::default();
        }
        Some(owed)
    }

    /// So many attempts were made; the next is due then. Whether handed out or
    /// not, it waits from here on.
    pub fn retry(&mut self, offset: u64, attempts: u32, due: Timestamp) {
        if let Some(slot) = self.slot_of(offset) {
            self.leave_heap(slot);
            let packed = self.at_mut(slot);
            packed.attempts = narrow(attempts);
            packed.due = pack(due);
            self.push(slot);
        }
    }

    /// Falls due earlier than it would. What was handed out stays so.
    pub fn hasten(&mut self, offset: u64, due: Timestamp) {
        if let Some(slot) = self.slot_of(offset) {
            self.at_mut(slot).due = pack(due);
            let (heap, place) = (self.at(slot).heap(), self.at(slot).place());
            if place != NONE {
                self.rise(wide(heap), wide(place));
            }
        }
    }

    /// What was handed out waits again, for the time it had.
    pub fn wait(&mut self, offset: u64) {
        if let Some(slot) = self.slot_of(offset)
            && self.at(slot).place() == NONE
        {
            self.push(slot);
        }
    }

    /// Hands out the earliest of an endpoint, of equals the lowest offset, if it
    /// is due.
    pub fn take_due(&mut self, endpoint: EndpointId, now: Timestamp) -> Option<u64> {
        if self.next_due(endpoint)? > now {
            return None;
        }
        let first = *self.heap(endpoint)?.slots.first()?;
        self.leave_heap(first);
        Some(self.at(first).offset())
    }

    /// Hands out one of the later ones of an endpoint: a leaf of its heap.
    pub fn take_late(&mut self, endpoint: EndpointId) -> Option<u64> {
        let last = *self.heap(endpoint)?.slots.last()?;
        self.leave_heap(last);
        Some(self.at(last).offset())
    }

    /// Hands out the one at this offset.
    pub fn take(&mut self, offset: u64) {
        if let Some(slot) = self.slot_of(offset) {
            self.leave_heap(slot);
        }
    }

    /// An endpoint's earliest one that waits.
    pub fn first(&self, endpoint: EndpointId) -> Option<(u64, Owed)> {
        let first = *self.heap(endpoint)?.slots.first()?;
        Some((self.at(first).offset(), self.owed(first)))
    }

    /// When an endpoint's next one falls due.
    pub fn next_due(&self, endpoint: EndpointId) -> Option<Timestamp> {
        let first = *self.heap(endpoint)?.slots.first()?;
        Some(unpack(self.at(first).due))
    }

    /// The endpoints that are owed any, in no particular order.
    pub fn endpoints(&self) -> impl Iterator<Item = EndpointId> {
        let owed = self.heaps.iter().filter(|heap| heap.owed > 0);
        owed.map(|heap| heap.endpoint)
    }

    /// How many of one endpoint are owed.
    pub fn count(&self, endpoint: EndpointId) -> usize {
        self.heap(endpoint).map_or(0, |heap| wide(heap.owed))
    }

    /// How many are owed.
    pub fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.by_offset.len() == 0
    }

    /// Everything owed, in offset order. Sorts.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Owed)> {
        let mut all: Vec<_> = self
            .by_offset
            .slots()
            .map(|slot| (self.at(slot).offset(), slot))
            .collect();
        all.sort_unstable();
        all.into_iter()
            .map(|(offset, slot)| (offset, self.owed(slot)))
    }

    /// The offsets of one endpoint that wait, those handed out left out, in no
    /// particular order.
    pub fn waiting(&self, endpoint: EndpointId) -> impl Iterator<Item = (u64, Owed)> {
        self.heap(endpoint)
            .into_iter()
            .flat_map(|heap| &heap.slots)
            .map(|&slot| (self.at(slot).offset(), self.owed(slot)))
    }

    /// Bytes it occupies, all indices included.
    pub fn bytes(&self) -> usize {
        let heaps: usize = self.heaps.iter().map(|heap| heap.slots.capacity()).sum();
        let words = heaps + self.free.capacity() + self.free_heaps.capacity();
        self.blocks.len() * size_of::<[Packed; BLOCK]>()
            + self.blocks.capacity() * size_of::<Box<[Packed; BLOCK]>>()
            + self.by_offset.bytes()
            + self.by_delivery.bytes()
            + words * size_of::<u32>()
            + self.heaps.capacity() * size_of::<Heap>()
            + self.by_endpoint.capacity() * (size_of::<(EndpointId, u32)>() + 1)
    }

    fn owed(&self, slot: u32) -> Owed {
        let packed = self.at(slot);
        Owed {
            delivery: DeliveryId::from_bytes(packed.delivery),
            endpoint: self.heaps[wide(packed.heap())].endpoint,
            attempts: u16::from_be_bytes(packed.attempts).into(),
            due: unpack(packed.due),
            deadline: unpack(packed.deadline),
        }
    }

    fn slot_of(&self, offset: u64) -> Option<u32> {
        self.by_offset
            .find(mix(offset), |slot| self.at(slot).offset() == offset)
    }

    fn heap(&self, endpoint: EndpointId) -> Option<&Heap> {
        let place = *self.by_endpoint.get(&endpoint)?;
        self.heaps.get(wide(place))
    }

    fn heap_of(&mut self, endpoint: EndpointId) -> u32 {
        if let Some(&place) = self.by_endpoint.get(&endpoint) {
            return place;
        }
        let heap = Heap {
            endpoint,
            owed: 0,
            slots: Vec::new(),
        };
        let place = if let Some(place) = self.free_heaps.pop() {
            self.heaps[wide(place)] = heap;
            place
        } else {
            self.heaps.push(heap);
            u32::try_from(self.heaps.len() - 1).expect("fewer than 2^32 endpoints")
        };
        self.by_endpoint.insert(endpoint, place);
        place
    }

    fn new_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let first = u32::try_from(self.blocks.len() * BLOCK).expect("fewer than 2^32 timers");
        let end = first + u32::try_from(BLOCK).unwrap_or(0);
        assert!(end < NONE, "fewer than 2^32 timers");
        self.blocks.push(Box::new([EMPTY; BLOCK]));
        self.free.extend((first + 1..end).rev());
        first
    }

    fn at(&self, slot: u32) -> &Packed {
        at(&self.blocks, slot)
    }

    fn at_mut(&mut self, slot: u32) -> &mut Packed {
        &mut self.blocks[wide(slot) / BLOCK][wide(slot) % BLOCK]
    }
}

/// The heaps.
impl Timers {
    fn before(&self, one: u32, other: u32) -> bool {
        let (one, other) = (self.at(one), self.at(other));
        (one.due, one.offset) < (other.due, other.offset)
    }

    fn push(&mut self, slot: u32) {
        let heap = wide(self.at(slot).heap());
        let slots = &mut self.heaps[heap].slots;
        if slots.len() == slots.capacity() {
            // Doubling would leave half of a full heap empty.
            slots.reserve_exact(slots.len() / 8 + 4);
        }
        slots.push(slot);
        let place = slots.len() - 1;
        self.rise(heap, place);
    }

    fn leave_heap(&mut self, slot: u32) {
        let (heap, place) = (wide(self.at(slot).heap()), self.at(slot).place());
        if place == NONE {
            return;
        }
        self.at_mut(slot).place = NONE.to_be_bytes();
        self.heaps[heap].slots.swap_remove(wide(place));
        if wide(place) < self.heaps[heap].slots.len() {
            let place = self.rise(heap, wide(place));
            self.sink(heap, place);
        }
    }

    fn put(&mut self, heap: usize, place: usize, slot: u32) {
        self.heaps[heap].slots[place] = slot;
        let place = u32::try_from(place).unwrap_or(NONE);
        self.at_mut(slot).place = place.to_be_bytes();
    }

    fn rise(&mut self, heap: usize, mut place: usize) -> usize {
        let slot = self.heaps[heap].slots[place];
        while place > 0 {
            let parent = self.heaps[heap].slots[(place - 1) / 2];
            if !self.before(slot, parent) {
                break;
            }
            self.put(heap, place, parent);
            place = (place - 1) / 2;
        }
        self.put(heap, place, slot);
        place
    }

    fn sink(&mut self, heap: usize, mut place: usize) {
        let slot = self.heaps[heap].slots[place];
        loop {
            let slots = &self.heaps[heap].slots;
            let (left, right) = (place * 2 + 1, place * 2 + 2);
            let Some(&first) = slots.get(left) else {
                break;
            };
            let (next, child) = match slots.get(right) {
                Some(&second) if self.before(second, first) => (right, second),
                _ => (left, first),
            };
            if !self.before(child, slot) {
                break;
            }
            self.put(heap, place, child);
            place = next;
        }
        self.put(heap, place, slot);
    }
}

impl Packed {
    fn offset(&self) -> u64 {
        u64::from_be_bytes(self.offset)
    }

    fn heap(&self) -> u32 {
        u32::from_be_bytes(self.heap)
    }

    fn place(&self) -> u32 {
        u32::from_be_bytes(self.place)
    }

    fn offset_hash(&self) -> u64 {
        mix(self.offset())
    }

    fn delivery_hash(&self) -> u64 {
        mix_id(&self.delivery)
    }
}

fn at(blocks: &[Box<[Packed; BLOCK]>], slot: u32) -> &Packed {
    &blocks[wide(slot) / BLOCK][wide(slot) % BLOCK]
}

fn mix_id(id: &[u8; 16]) -> u64 {
    let id = u128::from_be_bytes(*id);
    let halves = u64::try_from(id >> 64).unwrap_or(0)
        ^ u64::try_from(id & (u128::MAX >> 64))
            .unwrap_or(0)
            .rotate_left(32);
    mix(halves)
}

fn pack(time: Timestamp) -> [u8; 6] {
    let millis = time.as_millis().min((1 << 48) - 1).to_be_bytes();
    [
        millis[2], millis[3], millis[4], millis[5], millis[6], millis[7],
    ]
}

fn unpack(bytes: [u8; 6]) -> Timestamp {
    let [a, b, c, d, e, f] = bytes;
    Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

fn narrow(attempts: u32) -> [u8; 2] {
    u16::try_from(attempts).unwrap_or(u16::MAX).to_be_bytes()
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
