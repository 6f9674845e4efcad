//! The log on disk: the entries, in the order in which they were written.
//!
//! It keeps the files `log-` and a number, which are called segments. A segment is a header and
//! then records, one for each write of the core; a record is a number of whole sectors.
//!
//! # Invariants
//!
//! 1. A record is written only when all records before it are durable. So only the last record of
//!    the log can be torn, and every record before it was acknowledged or may have been.
//! 2. No record is ever overwritten. A record whose first entry lies within the log replaces the
//!    log's tail when it is replayed, wholly or not at all. So whatever a crash leaves behind, the
//!    records up to the last valid one are a log that the node once had.
//! 3. A segment has its name only when its header is durable, and segments are removed from the
//!    oldest on, each one durably before the next. So the numbers of the segments have no gap.
//!
//! # Files
//!
//! | file | what |
//! | --- | --- |
//! | [`writer`] | appends records, begins segments, cuts the start of the log |
//! | [`replay`] | reads the log back at a start |
//! | [`segment`] | the names and headers of segments; tells a torn record from a damaged one |
//! | [`record`] | the form of a record |
//! | [`sectors`] | the marks by which written sectors are told from others |
//! | [`outline`] | what has to be known of a log to tell whether a write continues it |
//! | [`spares`] | files that are made ready to become segments |

pub(super) mod outline;
mod record;
pub(super) mod replay;
pub(super) mod sectors;
pub(super) mod segment;
mod spares;
pub(super) mod writer;

pub use spares::Spares;
pub use writer::Unneeded;
