//! The two environments: the real clock and chance, and a settable clock with seeded chance.

use crate::ports::{Environment, Time};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The system's clock and the system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEnvironment;

// The one place where the clock is read and chance is drawn.
#[expect(clippy::disallowed_methods)]
impl Environment for SystemEnvironment {
    fn now(&self) -> Time {
        // A clock before 1970 or after the year 292 million is no clock; both ends stand for themselves.
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time::from_unix_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    /// # Panics
    /// If the system has no randomness to give: tokens that could repeat must not be handed out.
    fn random(&self) -> u64 {
        getrandom::u64().expect("the system gives random numbers")
    }
}

/// A clock that only moves when told to and chance that follows from a seed, so that a run can be repeated exactly.
#[derive(Debug)]
pub struct VirtualEnvironment {
    now: AtomicI64,
    chance: AtomicU64,
}

impl VirtualEnvironment {
    /// An environment at the moment `start`; the same `seed` gives the same numbers.
    pub const fn new(start: Time, seed: u64) -> Self {
        Self { now: AtomicI64::new(start.unix_millis()), chance: AtomicU64::new(seed) }
    }

    /// Moves the clock on; less than a millisecond moves nothing.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }

    /// Moves the clock to `time`, or nowhere if that lies behind.
    pub fn advance_to(&self, time: Time) {
        self.now.fetch_max(time.unix_millis(), Ordering::Relaxed);
    }
}

impl Environment for VirtualEnvironment {
    fn now(&self) -> Time {
        Time::from_unix_millis(self.now.load(Ordering::Relaxed))
    }

    /// The next number of splitmix64 (Steele, Lea and Flood, 2014).
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.chance.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_numbers() {
        let environment = VirtualEnvironment::new(Time::from_unix_millis(0), 1_234_567);
        let numbers = [environment.random(), environment.random(), environment.random()];
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_clock_moves_only_forward() {
        let environment = VirtualEnvironment::new(Time::from_unix_millis(1_000), 0);
        environment.advance(Duration::from_secs(2));
        assert_eq!(environment.now(), Time::from_unix_millis(3_000));
        environment.advance_to(Time::from_unix_millis(2_000));
        assert_eq!(environment.now(), Time::from_unix_millis(3_000));
    }

    #[test]
    fn the_system_has_a_clock_and_chance() {
        let day = SystemEnvironment.now().day();
        assert!(day.as_str() > "2025-01-01", "the clock says {day}");
        assert_ne!(SystemEnvironment.random(), SystemEnvironment.random());
    }
}
