//! Rows of choices for targets that run steps: no bytes are better than others, so these come from a counter.

use super::Seeds;

pub(crate) fn make(seeds: &mut Seeds) {
    for (number, length) in [(1, 60), (2, 200), (3, 600), (4, 1500)] {
        seeds.put("namespace", &format!("steps-{number}"), row(number, length));
        seeds.put("scope", &format!("steps-{number}"), row(number + 20, length));
        seeds.put("dedup", &format!("steps-{number}"), row(number + 50, length / 2));
    }
    for what in 0..3u8 {
        seeds.put("link", &format!("steps-{what}"), [&[what][..], &row(u64::from(what) + 80, 300)].concat());
    }
    for number in 0..14u8 {
        // The highest bit of a message, and the parity of a hello: a value is made.
        let choices = row(u64::from(number) + 100, 400);
        seeds.put("message", &format!("value-{number}"), [&[0x80 | number][..], &choices].concat());
        seeds.put("session", &format!("hello-{number}"), [&[0, number][..], &choices[..120]].concat());
    }
    // Server of a role in its time with its chain: role, time (two bytes and four), then certificates (which, and as it is).
    for role in 0..2u8 {
        for (number, chain) in [&[0u8][..], &[2], &[1, 0], &[3, 0, 2]].iter().enumerate() {
            let leaf = if role == 1 { 3 } else { 4 };
            let mut bytes = vec![role, 2, 9, 9, 9, 0, leaf, 7, u8::try_from(chain.len()).unwrap()];
            bytes.extend(chain.iter().flat_map(|which| [*which, 7]));
            seeds.put("pin", &format!("chain-{role}-{number}"), bytes);
        }
    }
    for number in 0..4u8 {
        let choices = row(u64::from(number) + 300, 200);
        seeds.put("sealed", &format!("exchanged-{number}"), [&[2 + number % 2][..], &choices].concat());
    }
    // The first byte chooses the map.
    for map in 0..3u8 {
        for number in 1..=2 {
            let steps = row(number + u64::from(map) * 7, 150 * usize::try_from(number).unwrap());
            seeds.put("extents", &format!("map-{map}-{number}"), [&[map][..], &steps].concat());
        }
    }
}

/// Bytes of a linear congruential generator (Knuth's MMIX constants).
pub(crate) fn row(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
