use std::time::Instant;

use anyhow::Result;

/// Times each of `works` in turn, `rounds` times over, so that whatever else the machine does
/// meets all of them alike; there and back again, so that none always follows the same other.
/// Seconds per call, one list for each of `works`.
pub(crate) fn interleaved(
    rounds: usize,
    calls: u32,
    works: &mut [&mut dyn FnMut() -> Result<()>],
) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::with_capacity(rounds); works.len()];
    // The first round warms up and is not counted.
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..works.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let start = Instant::now();
            for _ in 0..calls {
                works[index]()?;
            }
            let seconds = start.elapsed().as_secs_f64() / f64::from(calls);
            if round > 0 {
                times[index].push(seconds);
            }
        }
    }
    Ok(times)
}

/// The middle one.
pub(crate) fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
