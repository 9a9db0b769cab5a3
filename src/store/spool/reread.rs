//! What could not be read: patience with it, passing over it, and another try.
//!
//! A read that fails may succeed in a while (a controller that is reset, a network file system that
//! comes back), so what is next is waited for, and nothing overtakes it. A sector that is gone must
//! not hold up its neighbours for ever: after [`READ_PATIENCE`] tries it is passed over, and
//! everything behind it is delivered. What was passed over stays on disk, and is tried again as
//! often as [`Spool::reread`] is called, and at the next start; it comes late then.

use super::queue::Located;
use super::segment::{Found, Scan};
use super::survey;
use super::{Disk, Spool, SpoolError};
use base::Sequence;

/// Calls of [`Spool::next_unsent`] in a row that may fail before what they failed at is passed
/// over.
pub(super) const READ_PATIENCE: u32 = 6;
/// Messages whose places are held in memory and that were not sent: at this mark nothing is read
/// again, so that a whole spool that was passed over does not come into memory at once. One segment
/// may go beyond it.
const LOCATED_MOST: usize = 4096;

impl<D: Disk> Spool<D> {
    /// Notes that what is next could not be read; whether it is to be passed over now.
    pub(super) fn patience_ends(&mut self, error: &SpoolError) -> bool {
        self.failed_reads += 1;
        let over = self.failed_reads >= READ_PATIENCE;
        if over {
            self.failed_reads = 0;
            log::error!("{error}; it is passed over, and tried again later");
        }
        over
    }

    /// Somebody removed a file under this process, or the whole folder: what is there is found out
    /// again. Returns whether that is so.
    pub(super) fn see_whether_gone(&mut self, error: Option<&SpoolError>) -> bool {
        let gone = error.filter(|error| error.is_missing());
        if let Some(error) = gone {
            log::error!("{error}: it was removed; what waited in it is lost");
            self.start_over();
            if let Err(error) = self.make_ready() {
                log::error!("{error}; nothing is delivered until that is put right");
            }
        }
        gone.is_some()
    }

    /// Whether something was passed over.
    pub fn passes_over(&self) -> bool {
        self.prepared && self.queue.passed_over().is_some()
    }

    /// Tries once more to read what was passed over, a segment a call; its messages are unsent
    /// then. Returns whether there was one, and room for it.
    ///
    /// # Errors
    /// It still cannot be read.
    pub fn reread(&mut self) -> Result<bool, SpoolError> {
        self.make_ready()?;
        let Some((name, bound)) = self.queue.passed_over() else { return Ok(false) };
        if self.queue.unsent_located() >= LOCATED_MOST {
            return Ok(false);
        }
        let mut size = 0;
        let path = self.segment_path(name);
        let read = survey::read_segment(&mut self.disk, &path, &mut size);
        self.see_whether_gone(read.as_ref().err());
        let bytes = read?;
        let (messages, keep) = self.find_again(name, bound, &bytes);
        log::info!("{}: could be read again: {} messages", path.display(), messages.len());
        self.queue.restore(name, messages, keep);
        self.remove_finished();
        Ok(true)
    }

    /// The messages in a segment that wait and are not located; whether damage in it could not be
    /// copied.
    fn find_again(
        &mut self,
        name: Sequence,
        bound: Sequence,
        bytes: &[u8],
    ) -> (Vec<(Sequence, Located)>, bool) {
        let (mut messages, mut keep) = (Vec::new(), false);
        let mut scan = Scan::new(bytes, name, bound);
        loop {
            let offset = scan.at() as u64;
            match scan.next() {
                None => return (messages, keep),
                Some(Found::Record(record)) => {
                    if !record.answered && self.queue.may_restore(name, offset, record.sequence) {
                        let length = record.request.len() as u64;
                        let (user, stored_at) = (record.user, record.stored_at);
                        messages.push((
                            record.sequence,
                            Located { segment: name, offset, length, user, stored_at },
                        ));
                    }
                }
                Some(Found::Damaged(damage)) => keep |= !self.keep_damage(name, offset, damage),
            }
        }
    }
}
