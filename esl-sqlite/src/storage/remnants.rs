//! What SQLite leaves of rows in the pages that it has moved them about in.
//!
//! With `secure_delete`, SQLite overwrites a row that it deletes or moves to another page. But when it
//! packs a page anew, the old places of the rows that stay stay, too, in the space between the page's
//! list of rows and the rows. Once such a row has gone on to another page, nothing leads back from it to
//! that copy, so pages are looked through one by one.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    ops::Range,
    path::PathBuf,
};

/// Overwrites what is free in a page; false if it was clean.
pub(crate) fn clean(page: &mut [u8]) -> bool {
    let mut was_clean = true;
    for range in free(page) {
        let free = &mut page[range];
        if free.iter().any(|byte| *byte != 0) {
            free.fill(0);
            was_clean = false;
        }
    }
    !was_clean
}

/// Whether nothing is left in what is free in a page.
pub(crate) fn is_clean(page: &[u8]) -> bool {
    free(page).into_iter().all(|range| page[range].iter().all(|byte| *byte == 0))
}

/// The free space of a page that holds rows. Of any other page nothing: it begins with the number of
/// a page, which below [`PAGES_MAX`] cannot be taken for the kind of one.
fn free(page: &[u8]) -> Vec<Range<usize>> {
    let number = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let header_bytes = match page[0] {
        INNER_INDEX | INNER_TABLE => 12,
        LEAF_INDEX | LEAF_TABLE => 8,
        _ => return Vec::new(),
    };
    // In a page of 64 KiB, one that is empty says 0.
    let content = if number(5) == 0 { 1 << 16 } else { number(5) };
    let gap = header_bytes + 2 * number(3)..content;
    if gap.start > gap.end || content > page.len() {
        return Vec::new();
    }
    let mut free = vec![gap];
    let (mut block, mut end) = (number(1), content);
    while block != 0 {
        if block < end || block + BLOCK_HEADER_BYTES > page.len() {
            return Vec::new();
        }
        end = block + number(block + 2);
        if end < block + BLOCK_HEADER_BYTES || end > page.len() {
            return Vec::new();
        }
        free.push(block + BLOCK_HEADER_BYTES..end);
        block = number(block);
    }
    free
}

const INNER_INDEX: u8 = 2;
const INNER_TABLE: u8 = 5;
const LEAF_INDEX: u8 = 10;
const LEAF_TABLE: u8 = 13;
/// Where the next free block is, and how long this one is.
const BLOCK_HEADER_BYTES: usize = 4;

/// From so many pages on, what begins with the number of a page can look like one that holds rows.
pub(crate) const PAGES_MAX: i64 = 0x0200_0000;

/// The pages that are in the WAL, as they come.
pub(crate) struct WalPages {
    path: PathBuf,
    /// What tells this WAL from the one before it in the same file.
    salts: [u8; 8],
    /// How many were read.
    read: u64,
    page_bytes: u64,
}

impl WalPages {
    pub(crate) fn of(database: &std::path::Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), salts: [0; 8], read: 0, page_bytes: 0 }
    }

    /// Those after the ones that were read: fewer than `limit` if there are no more. The WAL must not
    /// start over between two calls, but for once before anything of it was read: whoever reads the
    /// database all the while takes care of that.
    pub(crate) fn next(&mut self, limit: usize) -> std::io::Result<Vec<u32>> {
        let mut pages = Vec::new();
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(pages),
            Err(error) => return Err(error),
        };
        let mut header = [0; WAL_HEADER_BYTES];
        if !fill(&mut file, &mut header)? {
            return Ok(pages);
        }
        let salts = header[16..24].try_into().expect("it is eight bytes");
        if salts != self.salts {
            (self.salts, self.read) = (salts, 0);
            self.page_bytes = first_number(&header[8..]).into();
        }
        let mut frame = [0; FRAME_HEADER_BYTES];
        while pages.len() < limit {
            let frame_bytes = FRAME_HEADER_BYTES as u64 + self.page_bytes;
            file.seek(SeekFrom::Start(WAL_HEADER_BYTES as u64 + self.read * frame_bytes))?;
            if !fill(&mut file, &mut frame)? || frame[8..16] != self.salts {
                break;
            }
            pages.push(first_number(&frame));
            self.read += 1;
        }
        Ok(pages)
    }
}

/// False if the file ends before.
fn fill(file: &mut File, bytes: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn first_number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().expect("callers have more than four"))
}

const WAL_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A leaf with one row of 10 bytes at its end, and a free block of 20 bytes before that.
    fn leaf() -> Vec<u8> {
        let mut page = vec![b'x'; 512];
        page[..10].copy_from_slice(&[LEAF_TABLE, 1, 0xe2, 0, 1, 1, 0xe2, 0, 1, 0xf6]);
        page[0x1e2..0x1e6].copy_from_slice(&[0, 0, 0, 20]);
        page
    }

    #[test]
    fn what_is_free_in_a_page_is_overwritten_and_nothing_else() {
        let mut page = leaf();
        assert!(!is_clean(&page));
        assert!(clean(&mut page));
        let mut cleaned = leaf();
        cleaned[10..0x1e2].fill(0);
        cleaned[0x1e6..0x1f6].fill(0);
        assert_eq!(page, cleaned);
        assert!(is_clean(&page));
        assert!(!clean(&mut page));
    }

    #[test]
    fn the_pages_that_were_written_since_are_in_the_wal() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("some.db");
        let mut wal = WalPages::of(&database);
        assert!(wal.next(9).unwrap().is_empty());
        let connection = Connection::open(&database).unwrap();
        let enter = "PRAGMA journal_mode = WAL; CREATE TABLE one (a); CREATE TABLE two (a);";
        connection.execute_batch(enter).unwrap();
        // The first page, with each table that is made, and the tables' own.
        assert_eq!(wal.next(3).unwrap(), [1, 2, 1]);
        assert_eq!(wal.next(3).unwrap(), [3]);
        connection.execute("INSERT INTO two VALUES (1)", []).unwrap();
        assert_eq!(wal.next(3).unwrap(), [3]);
        // One that has started over, before it was truncated.
        connection.execute_batch("PRAGMA wal_checkpoint = RESTART").unwrap();
        connection.execute("INSERT INTO one VALUES (1)", []).unwrap();
        assert_eq!((wal.next(3).unwrap(), wal.next(3).unwrap()), (vec![2], vec![]));
    }

    #[test]
    fn what_is_no_page_with_rows_or_a_damaged_one_is_left_alone() {
        let overflow = |page: &mut [u8]| page[..4].copy_from_slice(&[0x01, 0xff, 0xff, 0xff]);
        let too_many_rows = |page: &mut [u8]| page[3] = 1;
        let content_beyond_the_end = |page: &mut [u8]| page[5] = 2;
        let content_at_64_kib = |page: &mut [u8]| page[5..7].fill(0);
        let block_before_the_content = |page: &mut [u8]| page[1..3].copy_from_slice(&[1, 0]);
        let block_beyond_the_end = |page: &mut [u8]| page[0x1e5] = 40;
        let block_without_a_length = |page: &mut [u8]| page[0x1e5] = 0;
        let block_after_itself = |page: &mut [u8]| page[0x1e2..0x1e4].copy_from_slice(&[1, 0xe2]);
        let damages: [fn(&mut [u8]); 8] = [
            overflow,
            too_many_rows,
            content_beyond_the_end,
            content_at_64_kib,
            block_before_the_content,
            block_beyond_the_end,
            block_without_a_length,
            block_after_itself,
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let mut page = leaf();
            damage(&mut page);
            let before = page.clone();
            assert!(!clean(&mut page), "{number}");
            assert_eq!(page, before, "{number}");
        }
    }
}
