//! What it costs to start, and to store one more, with so many messages that wait.

use super::{Length, Series};
use crate::critical::{Until, ask, rate};
use crate::isolation::{copy, delay};
use crate::rig::{NEAR, Result, Rig, wait_looking};
use std::path::Path;
use std::time::{Duration, Instant};

/// The host that is called, and is away.
const FAR: &str = "far";
/// Messages in flight, where there are many.
const MANY: usize = 64;

pub(super) fn measure(bin: &Path, length: &Length) -> Result<Vec<Series>> {
    let mut series =
        ["until one is stored, seconds", "stored, 1 in flight", "stored, 64 in flight"].map(Series::new);
    // What waits is written once, and copied for each start.
    let prepared = tempfile::tempdir()?;
    let prepared = prepared.path().join(FAR);
    let mut waiting = 0;
    let powers = std::iter::successors(Some(1), |power| Some(power * 10));
    for count in std::iter::once(0).chain(powers.take_while(|power| *power <= length.stored)) {
        delay(&prepared, count - waiting)?;
        waiting = count;
        for _ in 0..length.rounds.min(3) {
            let numbers = one(bin, &prepared, length)?;
            for (series, number) in series.iter_mut().zip(numbers) {
                series.add(count as f64, number);
            }
        }
    }
    Ok(series.into())
}

/// Seconds until a message is stored; messages that are stored a second, one by one and with many
/// in flight.
fn one(bin: &Path, prepared: &Path, length: &Length) -> Result<[f64; 3]> {
    let rig = Rig::new(bin, &[FAR])?;
    copy(prepared, &rig.spool(FAR))?;
    let begun = Instant::now();
    let _lonc = rig.start("lonc", NEAR)?;
    wait_looking(Duration::from_millis(1), "a socket to be there", || rig.socket(FAR).exists())?;
    let (answer, _) = ask(&rig.socket(FAR), "line", 1, Until::Asked(1))?;
    let seconds = begun.elapsed().as_secs_f64();
    if answer != "con_delayed" {
        return Err(format!("store a message: the answer is {answer}").into());
    }
    let rate = |in_flight| rate(&rig.socket(FAR), "line", in_flight, length.time);
    Ok([seconds, rate(1)?, rate(MANY)?])
}
