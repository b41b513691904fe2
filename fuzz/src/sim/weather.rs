//! What goes wrong in a run, and how long things take: drawn once from its seed.

use std::time::Duration;

use super::random::Random;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Most time of a message on its way.
    pub(crate) delay: Duration,
    /// Messages of a thousand that take much longer,
    pub(crate) spikes: u64,
    /// up to this.
    pub(crate) spike: Duration,
    /// Most time until commits are durable.
    pub(crate) sync: Duration,
    /// Links break, so many a minute of the run and client.
    pub(crate) breaks: u64,
    /// Clients are cut off, so many a minute of the run,
    pub(crate) cuts: u64,
    /// for up to this.
    pub(crate) cut: Duration,
    /// Crashes of the server a minute.
    pub(crate) crashes: u64,
    /// Clients die, so many a minute.
    pub(crate) kills: u64,
    /// Files that programs use.
    pub(crate) files: usize,
    /// Programs of a client that only read.
    pub(crate) readers: usize,
    /// Opens of a thousand that are `O_DIRECT`.
    pub(crate) direct: u64,
    /// Reads of a thousand before which the machine is short of memory, and drops the file's pages.
    pub(crate) drops: u64,
    /// Writes of a thousand that are followed by `fsync`.
    pub(crate) syncs: u64,
}

impl Weather {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut weather = Self {
            delay: Duration::from_micros([100, 500, 2_000, 10_000][random.index(4)]),
            spikes: [0, 0, 20, 100][random.index(4)],
            spike: Duration::from_millis([20, 100, 1_000][random.index(3)]),
            sync: Duration::from_millis([1, 5, 50][random.index(3)]),
            breaks: 0,
            cuts: 0,
            cut: Duration::from_secs(1),
            crashes: 0,
            kills: 0,
            files: 1 + random.index(3),
            readers: 1 + random.index(3),
            direct: [0, 100, 500][random.index(3)],
            drops: [0, 100, 500][random.index(3)],
            syncs: [0, 100, 800][random.index(3)],
        };
        if random.chance(500) {
            weather.breaks = [60, 600, 2400][random.index(3)];
        }
        if random.chance(300) {
            weather.cuts = [60, 300][random.index(2)];
            weather.cut = Duration::from_secs([1, 4, 20][random.index(3)]);
        }
        if random.chance(200) {
            weather.crashes = [30, 120][random.index(2)];
        }
        if random.chance(100) {
            weather.kills = 60;
        }
        weather
    }

    /// Whether sessions may be lost.
    pub(crate) fn loses(&self) -> bool {
        self.cut > Duration::from_secs(5) || self.kills > 0 || self.crashes > 0
    }

    /// How long a message is on its way.
    pub(crate) fn way(&self, random: &mut Random) -> Duration {
        let most = if random.chance(self.spikes) { self.spike } else { self.delay };
        Duration::from_micros(20) + random.time(most)
    }
}
