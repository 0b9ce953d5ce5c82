//! How long programs take for a packet.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};

use super::bpf;
use super::statistics::median;

/// Rounds, in each of which all subjects have their turn.
pub(super) const ROUNDS: usize = 31;
/// Packets through one program at a time: a few milliseconds, so that noise falls on neighbours alike.
pub(super) const REPEAT: u32 = 65_536;

/// Nanoseconds for one packet, the loop included: this thread's own, since the kernel's figure is in whole
/// nanoseconds and contains what other processes took meanwhile.
pub(super) fn time(program: BorrowedFd<'_>, frame: &[u8], verdict: i32) -> Result<f64> {
    let before = own_time()?;
    let given = bpf::test_run(program, frame, REPEAT)?;
    let elapsed = own_time()? - before;
    ensure!(given == verdict, "the verdict is {given} and should be {verdict}");
    Ok(elapsed.as_nanos() as f64 / f64::from(REPEAT))
}

fn own_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A program, what it is given and what it should say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) program: BorrowedFd<'a>,
    pub(super) frame: &'a [u8],
    pub(super) verdict: i32,
}

/// What each of `N` subjects took in each round, nanoseconds for one packet, the loop included.
pub(super) struct Rounds<const N: usize>(Vec<[f64; N]>);

/// Gives all subjects their turn, round after round. A round before the first fills caches.
pub(super) fn alternate<const N: usize>(subjects: [Subject<'_>; N]) -> Result<Rounds<N>> {
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut taken = [0.0; N];
        for (taken, subject) in taken.iter_mut().zip(&subjects) {
            *taken = time(subject.program, subject.frame, subject.verdict)?;
        }
        if round > 0 {
            rounds.push(taken);
        }
    }
    Ok(Rounds(rounds))
}

impl<const N: usize> Rounds<N> {
    /// How many packets each subject was given.
    pub(super) const fn packets() -> u64 {
        (ROUNDS as u64 + 1) * REPEAT as u64
    }

    /// The median over the rounds of something that follows from one.
    pub(super) fn of(&self, what: impl Fn(&[f64; N]) -> f64) -> f64 {
        median(self.0.iter().map(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_taken_within_each_round() {
        // Noise that falls on both alike is none: the medians of the sides alone would give 10 / 2.
        let rounds = Rounds(vec![[2.0, 1.0], [30.0, 10.0], [10.0, 2.0]]);
        assert_eq!(rounds.of(|[ours, theirs]| ours / theirs), 3.0);
    }
}
