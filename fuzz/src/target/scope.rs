//! Sessions of several scopes, and one of all of the volume, over the real owner of a volume: random trees, links, renames,
//! restarts. The truth is a plain tree of names; seals are made and checked as at the server's border.

mod tree;
mod world;

use crate::source::Source;
use world::World;

/// Steps of one run.
const STEPS_MAX: usize = 400;

/// One step after the other, as long as there are bytes. Nothing that is outside of a scope is named to its session or by it, and
/// nothing that is in it is refused as strange.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if source.is_empty() {
            break;
        }
        world.step(&mut source);
    }
}
