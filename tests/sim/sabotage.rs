//! Deliberate faults, each of which the simulation must catch: it would be of no use if it could not fail.

/// What is done wrong on purpose, in the simulation's own glue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    None,
    /// `sync_dir` does nothing: names are not durable.
    NamesNotSynced,
    /// `sync_data` does nothing: bytes are not durable.
    DataNotSynced,
    /// A sync that failed is said to have succeeded.
    FailedSyncSwallowed,
    /// The record of what was answered is removed between two children.
    RecordDropped,
    /// A new link child begins with the sequences of the first one, in the same epoch.
    SequenceReset,
    /// A critical message is acknowledged before it is stored.
    AcknowledgedEarly,
    /// Answers to critical messages are sent before they are recorded.
    NotRecorded,
    /// An older and a newer link run critical messages at the same time.
    LockIgnored,
    /// An answer on the classic wire is delivered twice.
    AnswerTwice,
    /// Two critical messages that follow each other on the wire change places.
    FramesSwapped,
    /// A program's answer goes to another program.
    AnswerToAnother,
}

impl Sabotage {
    pub const ALL: [Sabotage; 11] = [
        Sabotage::NamesNotSynced,
        Sabotage::DataNotSynced,
        Sabotage::FailedSyncSwallowed,
        Sabotage::RecordDropped,
        Sabotage::SequenceReset,
        Sabotage::AcknowledgedEarly,
        Sabotage::NotRecorded,
        Sabotage::LockIgnored,
        Sabotage::AnswerTwice,
        Sabotage::FramesSwapped,
        Sabotage::AnswerToAnother,
    ];
}
