//! Bounds of dead letters for many, and of what brings their deliveries again.

use super::PAGE_MAX;

/// Offsets that one dead letter for many names as not among them. An owner lets
/// no more stand than twice what it works on at once; past it the later ones are
/// not named, and a redrive brings them once more.
pub const DEAD_RANGE_EXCEPT_MAX: usize = 2 * PAGE_MAX;
/// … and one operation, of all its ranges; a redrive that would need more of
/// them, or of ranges, begins another operation for the rest.
pub const OPERATION_EXCEPT_MAX: usize = 16 * 1_024;
/// Pages of dead letters looked through for one replay of what was given up;
/// past it the replay is refused, and a redrive goes on page by page.
pub const DEAD_PAGES_MAX: usize = 8;

const _: () = assert!(DEAD_RANGE_EXCEPT_MAX < OPERATION_EXCEPT_MAX);
