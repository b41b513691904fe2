//! Maps of file content against a flat vector: the mount's map of a layout, its dirty bytes, and the server's extents.

mod client;
mod server;

use crate::source::Source;

/// The first byte chooses the map.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    match source.below(3) {
        0 => client::layouts(source),
        1 => client::dirty(source),
        _ => server::run(source),
    }
}
