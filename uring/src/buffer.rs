//! The shard's receive buffers: a ring of provided buffers for multishot receives, handed out as leases.
//!
//! One mapping holds the descriptors the kernel reads (`struct io_uring_buf` x entries), another the bytes. The
//! pool's size bounds what all links of a shard may have received and not yet decoded; an empty pool is
//! backpressure: the receive ends with ENOBUFS and is armed again when a lease comes back.
#![expect(unsafe_code, reason = "shares memory with the kernel: descriptors, their tail, the received bytes")]

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll, Waker};

use io_uring::types::BufRingEntry;

use crate::ring::Ring;
use crate::sys::Mapping;

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// The kernel's limit on the entries of a buffer ring (io_uring_register_buf_ring(3)).
const ENTRIES_MAX: u16 = 1 << 15;

/// The pool of a shard.
#[derive(Debug)]
pub(crate) struct Pool {
    descriptors: Mapping,
    bytes: Mapping,
    entries: u16,
    buffer_bytes: u32,
    tail: Cell<u16>,
    /// Buffers the kernel has filled and nobody has given back.
    lent: Cell<u16>,
    waiters: RefCell<Vec<Waker>>,
}

impl Pool {
    /// Registers `entries` (rounded up to a power of two) buffers of `buffer_bytes` with the ring.
    pub(crate) fn new(ring: &Ring, entries: u16, buffer_bytes: u32) -> io::Result<Rc<Self>> {
        let entries = entries.clamp(1, ENTRIES_MAX).next_power_of_two();
        let buffer_bytes = buffer_bytes.max(64);
        let descriptors = Mapping::new(usize::from(entries) * size_of::<BufRingEntry>())?;
        let bytes = Mapping::new(usize::from(entries) * buffer_bytes as usize)?;
        // SAFETY: the mapping is page aligned and holds `entries` descriptors. It stays mapped until the ring is
        // closed: the shard's core keeps the pool, and leaks it if the ring was closed with receives unfinished.
        unsafe { ring.register_buffers(descriptors.base(), entries, GROUP) }?;
        let pool = Self {
            descriptors,
            bytes,
            entries,
            buffer_bytes,
            tail: Cell::new(0),
            lent: Cell::new(0),
            waiters: RefCell::new(Vec::new()),
        };
        for id in 0..entries {
            pool.provide(id);
        }
        Ok(Rc::new(pool))
    }

    /// Writes a buffer's descriptor behind the tail and publishes it.
    fn provide(&self, id: u16) {
        let tail = self.tail.get();
        let first = self.descriptors.base().cast::<BufRingEntry>();
        // SAFETY: masked with entries - 1 the index is inside the mapping.
        let place = unsafe { first.add(usize::from(tail & (self.entries - 1))) };
        // SAFETY: the place is inside the mapping, aligned (page start + multiple of 16) and initialized (zeroed by
        // the kernel). No other reference exists: the pool is used by one thread, and the kernel only reads
        // descriptors before the tail.
        let descriptor = unsafe { &mut *place };
        descriptor.set_addr(self.address(id).expose_provenance() as u64);
        descriptor.set_len(self.buffer_bytes);
        descriptor.set_bid(id);
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: `first` is the initialized start of the ring, where the tail overlays a reserved field.
        let published = unsafe { BufRingEntry::tail(first) }.cast_mut();
        // SAFETY: the tail lies in the mapping, is 2-aligned and from registration on only accessed atomically.
        let published = unsafe { AtomicU16::from_ptr(published) };
        published.store(self.tail.get(), Ordering::Release);
    }

    fn address(&self, id: u16) -> *mut u8 {
        debug_assert!(id < self.entries);
        self.bytes.base().wrapping_add(usize::from(id) * self.buffer_bytes as usize)
    }

    /// Takes over a buffer that a completion named.
    pub(crate) fn lease(self: &Rc<Self>, id: u16, len: usize) -> Lease {
        assert!(
            id < self.entries && len <= self.buffer_bytes as usize,
            "the kernel named a buffer it was not given"
        );
        self.lent.set(self.lent.get() + 1);
        Lease { pool: Rc::clone(self), id, len }
    }

    /// Waits until the kernel has at least one buffer.
    pub(crate) fn poll_available(&self, cx: &Context<'_>) -> Poll<()> {
        if self.lent.get() < self.entries {
            return Poll::Ready(());
        }
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
            waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Buffers out on lease.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> u16 {
        self.lent.get()
    }
}

/// Received bytes in a buffer of the shard's pool. Dropping it gives the buffer back to the kernel: decode and drop,
/// for held leases are receive window taken from every link of the shard.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    id: u16,
    len: usize,
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer lies in the pool's mapping, which the lease keeps, and `len` was checked against its
        // size. The kernel does not write to it before it is provided again, which only the drop does.
        unsafe { std::slice::from_raw_parts(self.pool.address(self.id), self.len) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        self.pool.provide(self.id);
        let waiters = std::mem::take(&mut *self.pool.waiters.borrow_mut());
        waiters.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use crate::shard::current;
    use crate::socket::{TcpListener, TcpStream};
    use crate::timer::sleep;
    use crate::{Shard, ShardConfig, spawn};

    /// Whatever happens to a stream, its buffers come back: taken, not taken, arrived after it was dropped.
    #[test]
    fn every_buffer_comes_back() {
        let config = ShardConfig { cpu: None, sq_entries: 8, recv_buffers: 4, recv_buffer_bytes: 64 };
        Shard::new(&config).unwrap().block_on(async {
            let pool = Rc::clone(current().pool.as_ref().unwrap());
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let accepting = spawn(async move { listener.accept().await.unwrap() });
            let client = TcpStream::connect(address).await.unwrap();
            let server = accepting.await;
            for round in 0..50 {
                let mut received = server.recv_stream();
                client.send_all(vec![1; 200]).await.0.unwrap();
                let lease = received.next().await.unwrap().unwrap();
                assert!(!lease.is_empty() && lease.len() <= 64);
                assert!(pool.lent() >= 1);
                if round % 2 == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
                drop(received);
                client.send_all(vec![2; 50]).await.0.unwrap();
                sleep(Duration::from_millis(1)).await;
                assert_eq!(pool.lent(), 1, "only the lease at hand");
                drop(lease);
                assert_eq!(pool.lent(), 0);
                // What was left in the socket is of no interest here.
                let mut rest = server.recv_stream();
                while crate::timer::timeout(Duration::from_millis(1), rest.next()).await.is_ok() {}
            }
            assert!(current().slots.borrow().count() < 8, "slots of dropped futures are freed");
        });
    }

    #[test]
    fn a_lease_outlives_its_shard() {
        let config = ShardConfig { cpu: None, sq_entries: 8, recv_buffers: 4, recv_buffer_bytes: 64 };
        let lease = Shard::new(&config).unwrap().block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let server = TcpStream::from_std(listener.accept().unwrap().0).unwrap();
            std::io::Write::write_all(&mut client, b"kept").unwrap();
            server.recv_stream().next().await.unwrap().unwrap()
        });
        assert_eq!(&*lease, b"kept");
    }
}
