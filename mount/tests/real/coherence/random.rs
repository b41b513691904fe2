//! Sizes and bytes from the harness's random numbers.

use crate::harness;

/// The harness's generator, as steps want its numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(harness::Random);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(harness::Random::new(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0.index(end.max(1))
    }

    /// True once in `count` times.
    pub(super) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A length or offset: mostly small, some of them around the borders where content changes its form (inline
    /// 16 KiB, page 4 KiB, segment 64 KiB).
    pub(super) fn size(&mut self) -> usize {
        match self.below(20) {
            0..=11 => self.below(600),
            12..=15 => self.below(9_000),
            16 => 4_096 * self.below(5),
            17 => 16_384 - 20 + self.below(40),
            18 if self.once_in(2) => self.below(40_000),
            18 => 65_536 - 20 + self.below(40),
            _ => self.below(120_000),
        }
    }
}

/// Bytes, named by length and seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub(super) length: usize,
    pub(super) seed: u64,
}

impl Fill {
    /// The bytes; never a zero among them, so that a hole is told from data.
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut random = Random::new(self.seed);
        let mut bytes = Vec::with_capacity(self.length + 8);
        while bytes.len() < self.length {
            bytes.extend((random.next() | 0x0101_0101_0101_0101).to_le_bytes());
        }
        bytes.truncate(self.length);
        bytes
    }
}
