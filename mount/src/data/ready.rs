//! Small files whose bytes are known when they are opened: the kernel gets them before the program is answered, which then reads its own
//! kernel's pages. That is one request less of five.
//!
//! The kernel locks a page to put bytes into it, and keeps it locked while it waits for the answer to a read, which may have to come from
//! the very thread that puts them there. So only the first open of a file does it, for whoever reads has it open; and under the file's lock, for
//! the next open is not to be answered before it is done.

use super::file::{Recalling, State};

impl State {
    /// The file was opened once more, in this life of the leases: if its bytes are known for certain, and the kernel has no pages of it,
    /// they are given to it. Whether they were.
    pub(crate) fn give_ready(&mut self, life: u64, give: impl FnOnce(&[u8]) -> bool) -> bool {
        let is_first = self.opens == 1 && !self.lease.is_filled;
        let is_true = self.lease.recall == Recalling::No && self.lease.holds(life);
        // A change that is on its way may cut it.
        let is_still = self.is_clean() && self.changing == 0 && self.pending.is_none();
        if !is_first || !is_true || !is_still || self.stale_kernel {
            return false;
        }
        let Some(bytes) = self.map().and_then(|map| map.whole(self.size())) else { return false };
        self.lease.is_filled = give(bytes);
        self.lease.is_filled
    }
}

#[cfg(test)]
mod tests {
    use flexfs_wire::attr::{Attr, S_IFREG};
    use flexfs_wire::extent::Layout;
    use flexfs_wire::id::Ino;
    use flexfs_wire::lease::Leases;
    use flexfs_wire::time::Time;

    use super::super::layout::Map;
    use super::*;
    use crate::lease::Asked;

    fn opened(inline: &[u8], size: u64) -> State {
        let attr = Attr { size, version: 4, ..Attr::new(Ino(7), S_IFREG | 0o644, Time::default()) };
        let layout = Layout { end: u64::MAX, version: 4, inline: inline.to_vec(), ..Layout::default() };
        let mut state = State::default();
        state.learn(&attr, 1);
        state.lease.grant(Leases::ATTR, (1, Asked::default()), 4);
        state.map = Some(Box::new(Map::new(layout).unwrap()));
        state.opens = 1;
        state
    }

    fn given(state: &mut State, life: u64) -> Option<Vec<u8>> {
        let mut bytes = None;
        let told = state.give_ready(life, |given| bytes.replace(given.to_vec()).is_none());
        assert_eq!(told, bytes.is_some());
        bytes
    }

    #[test]
    fn the_first_open_gives_all_bytes_once() {
        let mut state = opened(b"small", 5);
        assert_eq!(given(&mut state, 1).as_deref(), Some(&b"small"[..]));
        assert_eq!(given(&mut state, 1), None, "the kernel has them");
        state.note_dropped();
        assert_eq!(given(&mut state, 1).as_deref(), Some(&b"small"[..]));
    }

    #[test]
    fn who_reads_may_have_locked_the_pages() {
        let mut state = opened(b"small", 5);
        state.opens = 2;
        assert_eq!(given(&mut state, 1), None);
    }

    #[test]
    fn bytes_that_are_not_certain_are_not_given() {
        assert_eq!(given(&mut opened(b"small", 5), 2), None, "the lease is void");
        let spoilt: [fn(&mut State); 5] = [
            |state| state.lease.recall = Recalling::Open,
            |state| state.lease.drop_all(),
            |state| state.stale_kernel = true,
            |state| state.map = None,
            |state| state.changing = 1,
        ];
        for spoil in spoilt {
            let mut state = opened(b"small", 5);
            spoil(&mut state);
            assert_eq!(given(&mut state, 1), None);
        }
        assert_eq!(given(&mut opened(b"", 0), 1), None, "nothing to give");
        assert_eq!(given(&mut opened(b"small", 6), 1), None, "a hole behind them");
        assert_eq!(given(&mut opened(b"small", 4), 1).as_deref(), Some(&b"smal"[..]));
    }
}
