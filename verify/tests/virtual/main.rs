//! The tests of the distributed-systems course (MIT 6.5840) by their names, in one thread and in
//! virtual time, each from several seeds. They drive the code of production on simulated disks; see
//! `verify/src/sim/lab`. The same tests on real threads are in `verify/tests/threads`.
//!
//! Numbers, limits and times are the course's, its election timeout of 1,000 ms included, which is
//! twice the longest of ours. Where it is not so for one test, that test says it. For all of them:
//!
//! - The network is the course's, but what is sent to a server that is cut off is lost in silence:
//!   messages between our nodes are no calls, whose failure somebody could wait for.
//! - A crash is a power failure: what was not synced is lost, torn or kept by chance. The course
//!   keeps all that was saved.
//! - An index of the course is a place among commands. The empty entry that opens each term of
//!   ours, and the opening of a session, take an index of the log, but no place.
//! - Heartbeats are separate messages every 50 ms, pre-votes precede votes, and commands that come
//!   at the same time share a message: the limits on requests hold with all that.
//!
//! `RAFTKV_LAB_SEEDS=n` runs `n` seeds of each test instead of five, `RAFTKV_LAB_SEED=s` runs seed
//! `s` alone and prints its trace.

mod repeatable;
mod seeds;

/// Makes a test of each scenario, by family: it is run from several seeds.
macro_rules! tests {
    ($($family:ident { $($name:ident: $servers:literal $(, $clients:literal)?;)* })*) => {
        $(
            mod $family {
                $(
                    #[test]
                    fn $name() {
                        let test = crate::seeds::Test {
                            servers: $servers,
                            clients: 0 $(+ $clients)?,
                            body: raftkv_verify::course::$family::$name,
                        };
                        test.run(concat!(stringify!($family), "::", stringify!($name)));
                    }
                )*
            }
        )*
    };
}
raftkv_verify::scenarios!(tests);
