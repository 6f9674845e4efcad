//! New data folders in the place of those that cannot be used as they are.
//!
//! | file | what |
//! | --- | --- |
//! | [`replacing`] | puts a new folder in the place of another one, step by step |
//! | [`damaged`] | sets a damaged folder aside; its node begins anew beside it |
//! | [`survivor`] | makes a cluster of one from the folder of a node that has survived |
//!
//! Nothing is ever removed but what an interrupted attempt has left.

mod damaged;
mod replacing;
mod survivor;

pub use damaged::{DamagedFolder, SetAside};
pub use replacing::{
    finish_interrupted, finish_recovery, finish_recovery_in, interrupted_recovery,
};
pub use survivor::{Recovery, Survivor};

pub(super) use replacing::finish_interrupted_in;
