//! What must outlast a crash: the messages that wait for a peer, and the record of those that were
//! run.
//!
//! Both know files through [`base::disk::Disk`] alone, so that a faulty one can be put in its
//! place.

pub mod record;
pub mod spool;
