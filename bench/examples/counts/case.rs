//! What is counted. Each case is run twice in a process of its own: once to warm up (allocator, caches, what is made on
//! first use), once counted.

mod client;
mod server;
mod wire;

/// One hot path.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Calls of the path in one run: the count is divided by it.
    pub(crate) calls: u64,
    /// Prepares it; what it gives is what is run.
    prepare: fn() -> Box<dyn FnMut()>,
}

impl Case {
    /// Runs it.
    pub(crate) fn run(&self) {
        let mut path = (self.prepare)();
        path();
        counted_region(&mut *path);
    }
}

/// Callgrind counts between the entry of this function and its end.
#[inline(never)]
fn counted_region(path: &mut dyn FnMut()) {
    std::hint::black_box(path)();
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let mut all = wire::cases();
    all.extend(client::cases());
    all.extend(server::cases());
    all
}

/// The case of that name.
pub(crate) fn find(name: &str) -> Case {
    all().into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("there is no case {name}"))
}

/// A case whose path is one call, repeated so that what surrounds it does not count.
fn repeated(calls: u64, mut call: impl FnMut() + 'static) -> Box<dyn FnMut()> {
    Box::new(move || (0..calls).for_each(|_| call()))
}
