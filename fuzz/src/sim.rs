//! A seeded simulation of a cluster in one thread and in virtual time: the real owner of a volume (`flexfs_meta`), the real
//! data layer of several clients (`flexfs_mount::data`) under a model of the kernel's caches, and a network between them
//! that delays, breaks and cuts. What programs see is compared with what must be so. A run is a function of its seed.

mod check;
mod client;
mod kernel;
mod lead;
mod link;
mod net;
mod plan;
mod port;
mod program;
mod random;
mod recall;
mod weather;

pub use plan::{Outcome, run};
