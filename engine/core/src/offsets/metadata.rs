//! The text committed with an offset: which offsets after it are settled.
//!
//! ```text
//! "1" mode base64url( crc32c: 4 | epoch: 2 | H - C: LEB128 | body )
//!   mode g   body = gaps between the open offsets in C..H, LEB128 each
//!   mode b   body = one bit an offset in C..H, 1 = settled
//! ```
//!
//! C is the committed offset, which the checksum covers too. Offsets from H on
//! are unknown, so cutting H is always safe: a text that would be too long says
//! less, never something else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bits::Bits;
use crate::limits::COMMIT_SPAN_MAX;

/// Checksum, epoch and the longest LEB128.
const HEADER_BYTES_MAX: usize = 4 + 2 + 10;

/// The text for the settled offsets in `committed..end`, empty when there are
/// none or the budget (in characters) holds nothing.
pub(super) fn encode(bits: &Bits, committed: u64, end: u64, epoch: u16, budget: usize) -> String {
    let end = end.min(committed + COMMIT_SPAN_MAX);
    // What is open at the end is as good as unknown.
    let Some(last) = bits.last_set(committed, end) else {
        return String::new();
    };
    let room = (budget.saturating_sub(2) * 3 / 4).saturating_sub(HEADER_BYTES_MAX);
    let (by_gaps, gaps) = encode_gaps(bits, committed, last + 1, room);
    let (by_bits, bitset) = encode_bits(bits, committed, last + 1, room);
    let gaps_win = (by_gaps, bitset.len()) >= (by_bits, gaps.len());
    let (mode, horizon, body) = if gaps_win {
        ('g', by_gaps, gaps)
    } else {
        ('b', by_bits, bitset)
    };
    if horizon == committed {
        return String::new();
    }
    let mut checked = epoch.to_be_bytes().to_vec();
    put_leb(&mut checked, horizon - committed);
    checked.extend_from_slice(&body);
    let mut bytes = checksum(committed, mode, &checked).to_be_bytes().to_vec();
    bytes.extend_from_slice(&checked);
    let text = format!("1{mode}{}", URL_SAFE_NO_PAD.encode(bytes));
    // A budget below the header's own length holds nothing.
    if text.len() > budget {
        return String::new();
    }
    text
}

/// The settled offsets and the horizon; `None` for no text, or one that does
/// not check out.
pub(super) fn decode(committed: u64, text: &str) -> Option<(Bits, u64)> {
    let rest = text.strip_prefix('1')?;
    let mode = rest.chars().next()?;
    let bytes = URL_SAFE_NO_PAD.decode(rest.get(mode.len_utf8()..)?).ok()?;
    let (crc, checked) = bytes.split_first_chunk::<4>()?;
    if checksum(committed, mode, checked) != u32::from_be_bytes(*crc) {
        return None;
    }
    let mut body = checked.get(2..)?;
    let span = take_leb(&mut body)?;
    if span > COMMIT_SPAN_MAX {
        return None;
    }
    let horizon = committed.checked_add(span)?;
    let bits = match mode {
        'g' => decode_gaps(committed, horizon, body)?,
        'b' => decode_bits(committed, horizon, body)?,
        _ => return None,
    };
    Some((bits, horizon))
}

fn encode_gaps(bits: &Bits, committed: u64, end: u64, room: usize) -> (u64, Vec<u8>) {
    let mut body = Vec::new();
    let mut from = committed;
    loop {
        let open = bits.first_clear(from, end);
        if open == end {
            return (end, body);
        }
        let before = body.len();
        put_leb(&mut body, open - from);
        if body.len() > room {
            body.truncate(before);
            return (open, body);
        }
        from = open + 1;
    }
}

fn decode_gaps(committed: u64, horizon: u64, mut body: &[u8]) -> Option<Bits> {
    let mut bits = Bits::new(committed);
    let mut from = committed;
    while !body.is_empty() {
        let open = from.checked_add(take_leb(&mut body)?)?;
        if open >= horizon {
            return None;
        }
        bits.set_range(from, open);
        from = open + 1;
    }
    bits.set_range(from, horizon);
    Some(bits)
}

fn encode_bits(bits: &Bits, committed: u64, end: u64, room: usize) -> (u64, Vec<u8>) {
    let most = u64::try_from(room).unwrap_or(u64::MAX).saturating_mul(8);
    let end = end.min(committed.saturating_add(most));
    let body = (committed..end)
        .step_by(8)
        .map(|from| {
            (from..end.min(from + 8))
                .enumerate()
                .fold(0, |byte, (bit, offset)| {
                    byte | u8::from(bits.get(offset)) << bit
                })
        })
        .collect();
    (end, body)
}

fn decode_bits(committed: u64, horizon: u64, body: &[u8]) -> Option<Bits> {
    if u64::try_from(body.len()).ok()? != (horizon - committed).div_ceil(8) {
        return None;
    }
    let mut bits = Bits::new(committed);
    for (offset, place) in (committed..horizon).zip(0_usize..) {
        if body.get(place / 8)? >> (place % 8) & 1 == 1 {
            bits.set(offset);
        }
    }
    Some(bits)
}

fn checksum(committed: u64, mode: char, checked: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&committed.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, mode.to_string().as_bytes());
    crc32c::crc32c_append(crc, checked)
}

fn put_leb(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("masked to 7 bits");
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take_leb(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
