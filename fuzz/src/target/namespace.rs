//! Operations on a namespace against the reference model; see `world` and `model`.

/// A row of steps.
pub fn run(data: &[u8]) {
    crate::world::run(data);
}
