//! The allocator's memory.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "calls of the C library"))]

/// Gives pages that hold nothing but freed memory back to the system (`malloc_trim(3)`): glibc keeps them, for the next
/// allocations of the thread whose arena they are in. It takes each arena's lock in turn, a few milliseconds for each free
/// gigabyte. With another C library nothing happens.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time by any thread, and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes of memory that were allocated and not freed (`mallinfo(3)`). It takes each arena's lock in turn. `None` with another C library.
#[must_use]
pub fn in_use() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: as of `malloc_trim`.
        let info = unsafe { libc::mallinfo2() };
        Some(info.uordblks.saturating_add(info.hblkhd) as u64)
    }
    #[cfg(not(target_env = "gnu"))]
    None
}
