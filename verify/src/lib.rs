//! What tests raftkv as a whole. Nothing of it ships.
//!
//! | module | what |
//! | --- | --- |
//! | [`course`] | the tests of a well-known course, for clusters in virtual time and on threads |
//! | [`sim`] | whole clusters in one thread and in virtual time, from one seed |
//! | [`soak`] | real processes under real faults |

pub mod course;
pub mod sim;
pub mod soak;
