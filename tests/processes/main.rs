//! The two programs as their users have them: real processes on real sockets and files, that are
//! given nonsense, killed, frozen and told to stop.
#![cfg(feature = "cli")]

mod bad_frames;
mod bench;
mod cluster;
mod commands;
mod durability;
mod durable;
mod folders;
mod frozen_disk;
mod full_disk;
mod healing;
mod inadmissible;
mod isolation;
mod joining;
mod load;
mod members;
mod network;
mod raw;
mod recover;
mod rot;
mod scans;
mod settings;
mod signals;
mod snapshots;
mod strace;
mod syncs;
mod torn_tail;
mod wiped;
