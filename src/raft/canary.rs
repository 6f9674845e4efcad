//! Known-wrong variants of the core, by which the simulator proves that its checkers see anything.
//! Nothing can switch them on outside of it.

/// What the core does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// Votes leave before they are on disk.
    VotesEarly,
    /// Acknowledgements leave before the entries are on disk.
    AcknowledgesEarly,
    /// The leader's own log counts before it is on disk.
    CountsItselfEarly,
    /// Entries of earlier terms are committed by counting copies (paper figure 8).
    CommitsOldTerms,
    /// A vote goes to candidates whose log lacks entries.
    VotesForAnyLog,
    /// A follower commits up to its own last entry, whether it is the leader's or not.
    CommitsUnverified,
    /// An append that was overtaken cuts off what later ones brought.
    CutsOnOvertakenAppend,
    /// A write counts for what has replaced its entries since (A-B-A).
    CountsReplacedWrites,
    /// Reads are answered without asking whether this node still leads.
    ReadsUnconfirmed,
    /// Reads are answered before an entry of the leader's own term is committed.
    ReadsBeforeFirstCommit,
}
