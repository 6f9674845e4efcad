//! Tests of the core: clusters of cores in one thread, their disks and their network in between.

mod admission;
mod changes;
mod figure_eight;
mod golden;
mod harness;
mod holding;
mod hostile;
mod own_disk;
mod paper;
mod rejoining;
mod removed;
mod repair;
mod replication;
mod silent_followers;
mod snapshots;
mod swarm;
mod together;
mod told;
mod transfers;
