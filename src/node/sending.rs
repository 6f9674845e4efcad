//! Reading the parts of snapshots that are to be sent.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::raft::{EntryId, Envelope, NodeId, PartRequest, StoredSnapshot};
use crate::storage::{Snapshots, StorageError};

/// Reads parts of snapshots, and remembers which snapshots were verified.
#[derive(Default)]
pub(super) struct Sending {
    /// The last entries of the snapshots whose files were found whole and whose last part has not
    /// been sent since. At most as many as there are files: two.
    verified: BTreeSet<EntryId>,
}

/// A part cannot be read: the core has to send another snapshot.
#[derive(Debug)]
pub(super) struct Gone {
    /// The follower that needs the part.
    pub to: NodeId,
    /// The snapshot that the part belongs to.
    pub snapshot: StoredSnapshot,
    /// Why the part cannot be read.
    pub error: StorageError,
}

impl Sending {
    /// Reads a part that is to be sent. Before the first part is read, the whole file is verified:
    /// a follower refuses a damaged file, and the leader would send it again and again. A damaged
    /// file is set aside instead.
    ///
    /// The first part may be asked for many times, by several followers, or because it was lost on
    /// its way. To read the whole file each time could keep the disk busy for good. So of a file
    /// that was found whole only the header and the footer are looked at again before its last part
    /// has been sent. That is enough: a follower refuses a file when it has the header, if that is
    /// not valid, or when it has all of the file. If a follower refuses the file then, it may have
    /// been damaged after it was verified, and the next first part finds that out. So the whole
    /// file is read at most once for each time that it is sent as a whole.
    pub fn fetch(
        &mut self,
        files: &Snapshots,
        request: PartRequest,
    ) -> Result<Envelope, Box<Gone>> {
        let (to, last) = (request.to, request.snapshot.meta.last);
        let read = self.read(files, &request);
        let data = match read {
            Ok(data) => data,
            Err(error) => {
                self.pass_over_unreadable(files, last, &error);
                let snapshot = request.snapshot;
                return Err(Box::new(Gone {
                    to,
                    snapshot,
                    error,
                }));
            }
        };
        if request.offset + request.length >= request.snapshot.bytes {
            self.verified.remove(&last);
        }
        Ok(request.message(data))
    }

    fn read(&mut self, files: &Snapshots, request: &PartRequest) -> Result<Bytes, StorageError> {
        let last = request.snapshot.meta.last;
        if request.offset == 0 {
            self.verify(files, last)?;
        }
        let read = files.read_part(&request.snapshot, request.offset, request.length);
        // The file has another size. It may have become shorter since it was verified: no follower
        // would ever have all of it, so none would refuse it, and it has to be found bad here. Or
        // another file that ends with the same entry, a good one, has taken the place of a bad one.
        // Its parts are no parts of the snapshot that the follower is being sent.
        if matches!(read, Err(StorageError::Damaged { .. })) {
            self.verified.remove(&last);
            self.verify(files, last)?;
        }
        read
    }

    /// Takes a file that the disk refuses to read out of use, so that the follower gets a new
    /// snapshot. If nothing was executed meanwhile, the new snapshot ends with the same entry, and
    /// would be refused if the unreadable one still counted.
    fn pass_over_unreadable(&mut self, files: &Snapshots, last: EntryId, error: &StorageError) {
        if matches!(error, StorageError::Io { .. }) {
            self.verified.remove(&last);
            files.pass_over(last);
        }
    }

    fn verify(&mut self, files: &Snapshots, last: EntryId) -> Result<(), StorageError> {
        let verified = match self.verified.contains(&last) {
            true => files.open(last).map(drop),
            false => files.verify(last).map(drop),
        };
        match &verified {
            Ok(()) => {
                // A file that is not there any more is forgotten, so that the set does not grow.
                let kept = files.list();
                let is_kept = |of: &EntryId| kept.iter().any(|info| info.meta.last == *of);
                self.verified.retain(is_kept);
                self.verified.insert(last);
            }
            Err(StorageError::Damaged { .. }) => {
                self.verified.remove(&last);
                files.set_aside(last)?;
            }
            Err(_) => {}
        }
        verified
    }
}
