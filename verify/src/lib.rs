//! What tests raftkv as a whole. Nothing of it ships.
//!
//! | module | what |
//! | --- | --- |
//! | [`sim`] | whole clusters in one thread and in virtual time, from one seed |
//! | [`soak`] | real processes under real faults |

pub mod sim;
pub mod soak;
