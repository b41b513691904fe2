//! What a process gives up once it has what it needs, so that whoever takes it over has little: privileges, being looked
//! into, files, ports, system calls.
//!
//! Landlock, the system call filter, capabilities and "no new privileges" belong to a thread and are inherited by those it
//! starts: [`give_up`] is called before the first other thread. What the kernel lacks is left out and named by [`InForce`];
//! only a user that cannot be changed to is an error. Not here: namespaces, cgroups and the rest that a service manager
//! does (see [`Service`]; it is told by [`tell_ready`] when a server serves).

mod calls;
mod files;
mod notify;
mod privilege;
mod process;
mod unit;

pub use notify::tell_ready;
pub use privilege::{Keep, User};
pub use process::{HardenError, InForce, Needs, Reach, forbid_dumps, give_up};
pub use unit::{FlagsError, Service, split_flags};
