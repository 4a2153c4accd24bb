//! A hash of everything that happened, in order: two runs of one seed must give
//! the same one.

/// The hash so far, and how many steps went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    steps: u64,
}

impl Default for Trace {
    fn default() -> Self {
        // The offset basis of FNV-1a.
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
        }
    }
}

impl Trace {
    /// Notes one step.
    pub fn note(&mut self, step: &[u64]) {
        for &word in step {
            // FNV-1a over words, and a rotation so that high bits count.
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
        self.steps += 1;
    }

    /// The hash.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many steps.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_count() {
        let of = |steps: &[&[u64]]| {
            let mut trace = Trace::default();
            steps.iter().for_each(|step| trace.note(step));
            trace.hash()
        };
        assert_eq!(of(&[&[1, 2], &[3]]), of(&[&[1, 2], &[3]]));
        assert_ne!(of(&[&[1], &[2]]), of(&[&[2], &[1]]));
        assert_ne!(of(&[&[1, 2]]), of(&[&[1, 3]]));
    }
}
