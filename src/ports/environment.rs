use super::Time;

/// Time and chance, handed in so that a run can be repeated exactly.
pub trait Environment: Send + Sync {
    /// The present moment.
    fn now(&self) -> Time;

    /// A fresh, unpredictable number.
    fn random(&self) -> u64;
}
