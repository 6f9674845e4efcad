//! Reading the parts of snapshots that are to be sent.

use std::collections::BTreeSet;

use crate::raft::{EntryId, Envelope, Message, NodeId, PartRequest};
use crate::storage::{Snapshots, StorageError};

/// What is remembered of the snapshots that are being sent.
#[derive(Default)]
pub(super) struct Sending {
    /// The snapshots that were found whole, and whose last part has not been sent since.
    verified: BTreeSet<EntryId>,
}

/// A part that cannot be read.
#[derive(Debug)]
pub(super) struct Gone {
    /// Who needs it.
    pub to: NodeId,
    /// The last entry of the snapshot.
    pub last: EntryId,
    /// What went wrong.
    pub error: StorageError,
}

impl Sending {
    /// Reads a part that is to be sent. Before the first one, all of the snapshot is verified: had
    /// it gone bad since it was written, the follower would refuse it again and again. A damaged
    /// one is set aside.
    ///
    /// The first part may be asked for many times, by several followers, or because it was lost on
    /// its way. To read the whole file each time could keep the disk busy for good. So a file that
    /// was found whole is not verified again before its last part has been sent: no follower can
    /// refuse a file before it has all of it. If one does then, the file may have gone bad since it
    /// was verified, and the next first part finds that out. So a file is verified at most once for
    /// each time that it is sent as a whole.
    pub fn fetch(&mut self, files: &Snapshots, request: PartRequest) -> Result<Envelope, Gone> {
        let PartRequest {
            mut envelope,
            length,
        } = request;
        if let Message::Snapshot {
            meta,
            bytes,
            offset,
            data,
        } = &mut envelope.message
        {
            let last = meta.last;
            let verified = match *offset {
                0 => self.verify(files, last),
                _ => Ok(()),
            };
            let length_wanted = usize::try_from(length).unwrap_or(usize::MAX);
            let read = verified.and_then(|()| files.read_chunk(last, *offset, length_wanted));
            let to = envelope.to;
            *data = read.map_err(|error| Gone { to, last, error })?;
            if offset.saturating_add(length) >= *bytes {
                self.verified.remove(&last);
            }
        }
        Ok(envelope)
    }

    fn verify(&mut self, files: &Snapshots, last: EntryId) -> Result<(), StorageError> {
        if self.verified.contains(&last) {
            return Ok(());
        }
        let verified = files.verify(last).map(drop);
        match &verified {
            Ok(()) => {
                // Those that are gone need not be remembered.
                let kept = files.list();
                let is_kept = |of: &EntryId| kept.iter().any(|info| info.meta.last == *of);
                self.verified.retain(is_kept);
                self.verified.insert(last);
            }
            Err(StorageError::Damaged { .. }) => files.set_aside(last)?,
            Err(_) => {}
        }
        verified
    }
}
