//! Parts of lists.

use esl_core::storage::PageOf;

use crate::rows::limit_number;

/// A part of a list that is being read: the first `limit` of rows that have something to show.
///
/// A damaged row shows nothing, so there may be further rows to ask for, behind those that were read.
#[derive(Debug)]
pub(crate) struct PageReader<T> {
    limit: usize,
    items: Vec<T>,
    /// How many rows were asked for.
    asked: usize,
    more: bool,
}

impl<T> PageReader<T> {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, items: Vec::new(), asked: 0, more: false }
    }

    /// How many rows are to be read next: one beyond the last that is shown says whether there are more.
    pub(crate) fn ask(&mut self) -> i64 {
        self.asked = self.limit.saturating_sub(self.items.len()).saturating_add(1);
        limit_number(self.asked)
    }

    /// Takes what the next row shows.
    pub(crate) fn take(&mut self, item: Option<T>) {
        let Some(item) = item else { return };
        if self.items.len() < self.limit {
            self.items.push(item);
        } else {
            self.more = true;
        }
    }

    /// Whether nothing more is to be asked for, when so many rows came.
    pub(crate) const fn is_done(&self, came: usize) -> bool {
        self.more || came < self.asked
    }

    pub(crate) fn into_page(self) -> PageOf<T> {
        PageOf { items: self.items, more: self.more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a page of a list in which `None` is damaged, and says how many rows were read.
    fn page(list: &[Option<u8>], limit: usize) -> (Vec<u8>, bool, usize) {
        let (mut reader, mut read) = (PageReader::new(limit), 0);
        loop {
            let asked = usize::try_from(reader.ask()).unwrap();
            let rows: Vec<_> = list[read..].iter().take(asked).copied().collect();
            read += rows.len();
            let came = rows.len();
            rows.into_iter().for_each(|row| reader.take(row));
            if reader.is_done(came) {
                let PageOf { items, more } = reader.into_page();
                return (items, more, read);
            }
        }
    }

    #[test]
    fn a_page_is_full_whatever_is_damaged_and_says_whether_more_follow() {
        let whole = [Some(1), Some(2), Some(3)];
        assert_eq!(page(&whole, 3), (vec![1, 2, 3], false, 3));
        assert_eq!(page(&whole, 2), (vec![1, 2], true, 3));
        assert_eq!(page(&[], 2), (vec![], false, 0));
        let damaged = [None, Some(1), None, None, Some(2), None, Some(3), Some(4)];
        assert_eq!(page(&damaged, 2), (vec![1, 2], true, 7));
        assert_eq!(page(&damaged[..6], 2), (vec![1, 2], false, 6));
        assert_eq!(page(&[None, None], 1), (vec![], false, 2));
    }
}
