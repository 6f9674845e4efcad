//! Known-wrong variants of the data folder, by which the simulator proves that its checkers see
//! anything. Nothing can switch them on outside of it.

/// What the folder does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Damage is cut off as if it were a torn tail.
    CutsDamage,
    /// A new tail that is shorter than the old one leaves the rest of it in place.
    KeepsOldTail,
    /// Writing goes on after a sync that failed.
    GoesOnAfterFailure,
    /// What the checksums of a snapshot say is not heeded.
    TrustsSnapshots,
}
