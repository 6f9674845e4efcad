//! The log on disk: the entries, in the order in which they were written.
//!
//! The log is kept in files named `log-` and a number, which are called segments. A segment is a
//! header followed by records. Each write of the Raft core becomes one record, which fills a number
//! of whole sectors.
//!
//! # Invariants
//!
//! 1. A record is written only when all records before it are durable. So only the last record of
//!    the log can be torn. Every record before it may have been acknowledged.
//! 2. No record is ever overwritten. If the log already has an entry at the index of a record's
//!    first entry, replay lets the record's entries replace the log's from that index on. A record
//!    is valid as a whole or not at all. So after any crash, the records up to the last valid one
//!    are a log that the node once had.
//! 3. A segment gets its name only when its header is durable. The oldest segment is removed first,
//!    and its removal is durable before the next one is removed. So the numbers of the segments
//!    have no gap.
//!
//! # Files
//!
//! | file | what |
//! | --- | --- |
//! | [`writer`] | appends records, begins segments, cuts the start of the log |
//! | [`replay`] | reads the log back at a start |
//! | [`segment`] | the names and headers of segments; tells a torn record from a damaged one |
//! | [`record`] | the format of a record |
//! | [`sectors`] | the marks that tell whether a sector has been written |
//! | [`outline`] | the first index of each term, by which a write is checked against the log |
//! | [`spares`] | files that are prepared to become segments |

pub(super) mod outline;
mod record;
pub(super) mod replay;
pub(super) mod sectors;
pub(super) mod segment;
mod spares;
pub(super) mod writer;

pub(super) use record::check_records;
pub use spares::{Shortage, Spares};
pub use writer::Unneeded;
