//! The machine: one volume, one thread, no clock, no I/O but its store.
