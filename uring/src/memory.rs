//! The allocator's free memory.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "a call of the C library"))]

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
