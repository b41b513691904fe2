//! Pages of a large file, in random order.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use anyhow::ensure;
use rustix::fs::Advice;

use super::meter::{Gate, Meter};
use super::sequential::file;
use super::spec::{Outcome, Spec};
use crate::pattern::{self, PAGE, Random};

/// Seed of pages that were written over.
const WRITTEN_OVER: u64 = 1;

fn offsets(spec: &Spec) -> impl Iterator<Item = u64> + use<> {
    let (mut random, pages) = (Random::new(spec.index + 1), spec.pages);
    std::iter::repeat_with(move || random.below(pages) * PAGE as u64)
}

/// `pread` of 4096 bytes. Depth is the number of workers, which share the file.
pub(crate) fn read(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    let mut page = vec![0; PAGE];
    pattern::fill(&mut page, 0, 0);
    let open = || -> anyhow::Result<File> {
        let input = File::open(file(&spec.folder))?;
        // As fio does: no readahead of what nobody will want.
        rustix::fs::fadvise(&input, 0, None, Advice::Random)?;
        Ok(input)
    };
    let input = if spec.warm {
        let input = open()?;
        // The same open file again: what the kernel keeps of it is what is measured.
        offsets(spec)
            .take(usize::try_from(spec.count)?)
            .try_for_each(|offset| input.read_exact_at(&mut page, offset))?;
        gate()?;
        input
    } else {
        gate()?;
        open()?
    };
    let mut offsets = offsets(spec);
    let meter = Meter::run(spec, |_| {
        let offset = offsets.next().unwrap_or(0);
        input.read_exact_at(&mut page, offset)?;
        ensure!(pattern::holds(&page, 0, offset), "the page at {offset} is not what was written");
        Ok(PAGE as u64)
    })?;
    Ok(meter.end())
}

/// `pwrite` of 4096 bytes each, one `fsync` at the end, which is part of the measurement.
pub(crate) fn write(spec: &Spec, gate: Gate<'_>) -> anyhow::Result<Outcome> {
    let mut page = vec![0; PAGE];
    let out = OpenOptions::new().read(true).write(true).open(file(&spec.folder))?;
    gate()?;
    let mut places = offsets(spec);
    let meter = Meter::run(spec, |_| {
        let offset = places.next().unwrap_or(0);
        pattern::fill(&mut page, WRITTEN_OVER, offset);
        out.write_all_at(&page, offset)?;
        Ok(PAGE as u64)
    })?;
    out.sync_all()?;
    let outcome = meter.end();
    let done = usize::try_from(outcome.done)?;
    for offset in offsets(spec).take(done).step_by(done / 50 + 1) {
        out.read_exact_at(&mut page, offset)?;
        // What throws data away shows what was there before, unless the kernel has kept the page.
        let holds =
            pattern::holds(&page, WRITTEN_OVER, offset) || spec.discards && pattern::holds(&page, 0, offset);
        ensure!(holds, "the page at {offset} is not what was written over it");
    }
    Ok(outcome)
}
