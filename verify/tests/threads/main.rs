//! The tests of the distributed-systems course (MIT 6.5840) by their names, on real threads and
//! the network in memory: the scenarios of `verify/src/course`.
//!
//! Where the numbers differ from the course's:
//!
//! - The course waits by a nominal election timeout of 1,000 ms. Ours are drawn from 250 to 500
//!   ms, so the nominal timeout is 500 ms, and the limits that follow from it are halved, too.
//! - A random procedure takes fewer rounds, or a shorter time, where rounds are all that the
//!   course's number adds: a fifth of 1,000 rounds, half of fewer than 100.
//! - The course delays and loses calls, ours messages: each direction loses a tenth and delays by
//!   up to 26 ms, where the course delays requests only. One in fifty arrives twice.
//! - A crash of the course keeps all that was saved. Ours is a power failure: what was not synced
//!   is lost, torn or kept by chance.
//! - An index of the course is a place among commands. The empty entry that opens each term of
//!   ours takes an index of the log, but no place.
//! - The course has its tests wait for a fixed time before they look. These look at once and
//!   again, until it is so or the course's time is up.
//! - The course takes a snapshot every 10 entries, or after 1,000 bytes of saved state. Ours is
//!   due once the log since the last one weighs as much as that one's file, which takes more than
//!   8 KiB, so the tests of snapshots ask for them as often as the course does. An entry weighs 32
//!   bytes beside its command.
//! - The course limits the size of the saved Raft state. Ours is cut in whole segments on disk, so
//!   the limit is on the log in memory, which holds what was applied since the last snapshot.

use parking_lot::Mutex;

/// One of the tests with clients at a time: they keep the processor busy, and threads that do not
/// get to run in time look like servers that are gone.
static TURN: Mutex<()> = Mutex::new(());

/// Makes a test of each scenario, by family.
macro_rules! tests {
    ($($family:ident { $($name:ident: $servers:literal $(, $clients:literal)?;)* })*) => {
        $(
            mod $family {
                use raftkv_verify::course::{Arena, Threads};

                $(
                    #[test]
                    fn $name() {
                        let clients = 0 $(+ $clients)?;
                        let _turn = (clients > 0).then(|| crate::TURN.lock());
                        let mut arena = Threads::new($servers, clients);
                        raftkv_verify::course::$family::$name(&mut arena);
                        arena.check_end();
                    }
                )*
            }
        )*
    };
}
raftkv_verify::scenarios!(tests);
