//! Timing by turns.

use std::time::Instant;

use anyhow::Result;

/// Something that is done again and again.
pub(crate) type Step<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// How often a step is done before it is timed: until caches are warm.
const WARM: u32 = 50;

/// Times each step by turns, `rounds` times `count` steps; gives the median of the rounds in microseconds a step.
pub(crate) fn by_turns(rounds: usize, count: u32, steps: &mut [Step<'_>]) -> Result<Vec<f64>> {
    let mut taken = vec![Vec::with_capacity(rounds); steps.len()];
    for _ in 0..rounds {
        for (step, taken) in steps.iter_mut().zip(&mut taken) {
            for _ in 0..WARM {
                step()?;
            }
            let start = Instant::now();
            for _ in 0..count {
                step()?;
            }
            taken.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(count));
        }
    }
    Ok(taken.into_iter().map(median).collect())
}

/// What a step takes, in microseconds.
pub(crate) struct Taken {
    /// The median of what it takes on average in each round.
    pub(crate) typical: f64,
    /// All but one of a hundred take no longer.
    pub(crate) p99: f64,
}

/// [`by_turns`] with every step timed by itself.
pub(crate) fn each_by_turns(rounds: usize, count: u32, steps: &mut [Step<'_>]) -> Result<Vec<Taken>> {
    let mut singles = vec![Vec::new(); steps.len()];
    let mut averages = vec![Vec::with_capacity(rounds); steps.len()];
    for _ in 0..rounds {
        for (number, step) in steps.iter_mut().enumerate() {
            for _ in 0..WARM {
                step()?;
            }
            let start = Instant::now();
            let mut last = start;
            for _ in 0..count {
                step()?;
                let now = Instant::now();
                singles[number].push((now - last).as_secs_f64() * 1e6);
                last = now;
            }
            averages[number].push((last - start).as_secs_f64() * 1e6 / f64::from(count));
        }
    }
    let both = averages.into_iter().zip(singles);
    Ok(both
        .map(|(averages, singles)| Taken { typical: median(averages), p99: percentile(singles, 99) })
        .collect())
}

/// What so many of a hundred do not exceed; 0 of none.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(0.0)
}

/// The middle one; 0 of none.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_mind_an_outlier() {
        assert!((median(vec![3.0, 900.0, 1.0]) - 3.0).abs() < 1e-9);
        assert!((median(vec![7.0]) - 7.0).abs() < 1e-9);
        let hundred = (0..100).map(f64::from).collect();
        assert!((percentile(hundred, 99) - 99.0).abs() < 1e-9);
    }
}
