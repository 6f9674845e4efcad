//! A file in the machine's file system. If possible, whole sectors are written to the disk without
//! the kernel's page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{DiskFile, SECTOR};

/// An open file. `direct` is a second handle of the same file, which writes to the disk without the
/// kernel's page cache; `None` if the file system cannot write that way, or nobody has asked for
/// it.
pub(in crate::storage) struct RealFile {
    file: File,
    direct: Option<File>,
}

impl RealFile {
    pub(in crate::storage) fn new(file: File) -> Self {
        Self { file, direct: None }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &self.direct {
            Some(direct) if is_aligned(bytes, offset) => direct.write_all_at(bytes, offset),
            _ => self.file.write_all_at(bytes, offset),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn expect_whole_sectors(&mut self) {
        self.direct = open_direct(&self.file);
    }

    fn forget(&self, from: u64, len: u64) {
        // The kernel may refuse it; then what it remembers is read.
        let _ = advise_forgetting(&self.file, from, len);
    }

    fn zeros(&self) -> &'static [u8] {
        match self.direct {
            Some(_) => &ZEROS.0,
            // Write page by page. The kernel may cache a larger write as one unit, and then each
            // later small write into that unit costs as much as the whole unit.
            None => &ZEROS.0[..PAGE],
        }
    }
}

const PAGE: usize = 4 << 10;

#[repr(align(4096))]
struct Zeros([u8; 16 * PAGE]);

static ZEROS: Zeros = Zeros([0; 16 * PAGE]);

fn is_aligned(bytes: &[u8], offset: u64) -> bool {
    let sector = SECTOR as u64;
    let numbers = [bytes.as_ptr().addr() as u64, bytes.len() as u64, offset];
    numbers.iter().all(|number| number.is_multiple_of(sector))
}

/// Opens the same file again, to write to it without the kernel's page cache. `None` if the file
/// system cannot write single sectors without the page cache, or does not say whether it can.
#[cfg(target_os = "linux")]
fn open_direct(file: &File) -> Option<File> {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};

    let facts = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let possible = |align: u32| (1..=SECTOR as u32).contains(&align);
    if !possible(facts.stx_dio_mem_align) || !possible(facts.stx_dio_offset_align) {
        return None;
    }
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    // Open the file by its descriptor's path in `/proc`, because the file may have been renamed
    // since it was opened.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(flags).open(path).ok()
}

#[cfg(target_os = "linux")]
fn advise_forgetting(file: &File, from: u64, len: u64) -> rustix::io::Result<()> {
    use std::num::NonZero;

    use rustix::fs::{Advice, fadvise};

    fadvise(file, from, NonZero::new(len), Advice::DontNeed)
}

#[cfg(not(target_os = "linux"))]
fn advise_forgetting(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &File) -> Option<File> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::log::sectors::{DATA, Marks, Sectors};

    #[test]
    fn what_is_written_past_the_cache_and_through_it_is_one_file() {
        let file = tempfile::tempfile().expect("a temporary file");
        let mut file = RealFile::new(file);
        file.write_at(&[1; 3000], 0).expect("there is room");
        file.expect_whole_sectors();
        file.allocate(3000, 200_000).expect("there is room");
        let mut sectors = Sectors::default();
        sectors.fill(&[7; 3 * DATA], Marks::of_new_file(1));
        file.write_at(sectors.as_bytes(), 512).expect("aligned");
        file.write_at(sectors.as_bytes(), 3001).expect("not so");
        file.write_at(&[9; 10], 1020).expect("neither");
        file.sync_data().expect("a disk");

        let mut expected = vec![0; 200_000];
        expected[..3000].fill(1);
        expected[512..][..1536].copy_from_slice(sectors.as_bytes());
        expected[3001..][..1536].copy_from_slice(sectors.as_bytes());
        expected[1020..][..10].fill(9);
        let mut found = vec![0; file.len().expect("it is open") as usize];
        file.read_at(&mut found, 0).expect("it is all there");
        assert!(found == expected);
    }

    #[test]
    fn whole_sectors_of_the_log_are_aligned_and_others_are_not_taken_for_it() {
        let mut sectors = Sectors::default();
        sectors.fill(&[7; 3 * DATA], Marks::of_new_file(1));
        let bytes = sectors.as_bytes();
        assert!(is_aligned(bytes, 4096) && is_aligned(&ZEROS.0, 0));
        assert!(!is_aligned(bytes, 4097) && !is_aligned(&bytes[1..513], 0));
        assert!(!is_aligned(&bytes[..511], 0));
    }
}
