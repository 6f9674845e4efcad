//! Why a node refuses a command or a read.

/// Why a command was not appended. It will not be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// Too much is uncommitted, or leadership is being transferred.
    #[error("too much is under way")]
    Busy,
}

/// Why a read was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader,
    /// Too many reads wait to be confirmed.
    #[error("too many reads are under way")]
    Busy,
}
