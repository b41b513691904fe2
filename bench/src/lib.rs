//! Measurements. The benches are in `benches/`; the side-by-side comparison comes with the next issue.
#![forbid(unsafe_code)]
