//! Deliberate faults, each of which the simulation must catch: it would be of no use if it could
//! not fail.
//!
//! What a person could break with one line in the product is done here at its edges: what its cores
//! ask the disk for, the frames that they exchange, the steps that their reactors and supervisors
//! take. So the product has no switch for it.
//!
//! Not here, because no network shows it: a key file that others may read. What crosses the wire is
//! the same, whoever has read it, and here there are no keys at all.
//! `a_key_that_others_may_read_is_refused` in `src/wire/secure/key.rs` sees to it.

/// What is done wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Nothing.
    None,

    // The disk: see `disk`.
    /// `sync_dir` does nothing: names are not durable.
    NamesNotSynced,
    /// `sync_data` does nothing: bytes are not durable.
    DataNotSynced,
    /// Only segments are not synced.
    SegmentsNotSynced,
    /// Only the record of what was answered is not synced.
    RecordNotSynced,
    /// A sync of the record that failed is said to have succeeded.
    RecordSyncFailureIgnored,
    /// What a killed child has left in the record is not synced before it is answered from.
    RecoveredUnsynced,
    /// Only the names in a spool's folder are not synced.
    SpoolNamesNotSynced,
    /// A sync that failed is said to have succeeded.
    FailedSyncSwallowed,
    /// A segment is removed together with the next.
    SegmentRemovedEarly,
    /// A message's progress mark is set when it is stored.
    MarkedAhead,
    /// Progress marks are not written.
    NeverMarked,
    /// What was refused is not kept in `failed/`.
    RefusedDropped,
    /// A dropped file is not removed when it was taken in.
    DroppedFileKept,
    /// A dropped file is removed when it was read, before its message is stored.
    DroppedFileRemovedEarly,
    /// A link child is not told of a file that was moved into its folder.
    DroppedFileUntold,
    /// Writing the record anew loses its newest answer.
    CompactionLosesNewest,

    // The wire: see `wiretap`.
    /// Two critical messages that follow each other change places.
    FramesSwapped,
    /// Two answers that follow each other change places.
    AnswersSwapped,
    /// A critical message is not sent, once in a while.
    CriticalLost,
    /// A critical message says that it is settled itself.
    SettledTooFar,
    /// The epoch of a spool is not told.
    EpochIgnored,
    /// GOAWAY says that nothing that was sent is taken.
    GoAwayTooLow,
    /// It leaves out the last request that is taken.
    GoAwayOneLess,
    /// It names one that is not taken.
    GoAwayOneMore,
    /// A caller does not look at who says HELLO.
    CalledUnknown,
    /// A called host does not look at it.
    CallerUnknown,
    /// Answers are sent whatever the window has.
    AnswersBeyondWindow,
    /// What is taken off a window is never given back.
    WindowKept,
    /// It is given back twice.
    WindowTwice,
    /// No PING is sent.
    HeartbeatsUnsent,
    /// The called side is not told whose messages are held back.
    HeldUntold,
    /// An answer on the classic wire is delivered twice.
    AnswerTwice,

    // The order of the product's own turns: see `link`.
    /// What there is for the peer and for programs is written before the broker has carried on.
    WrittenFirst,
    /// A child that is to end for good does not read what programs have sent by then.
    DrainedUnread,

    // What is between the cores and the world: `link`, `lond`, `supervisor`.
    /// The record of what was answered is removed between two children.
    RecordDropped,
    /// A new link child begins with the sequences of the first one, in the same epoch.
    SequenceReset,
    /// A spool that was wiped begins with the epoch of the old one.
    EpochReused,
    /// A critical message is acknowledged before it is stored.
    AcknowledgedEarly,
    /// `con_delayed` is said when storing failed.
    FailureHidden,
    /// Answers to critical messages are sent before they are recorded.
    NotRecorded,
    /// They are sent when they are written, and nothing is synced.
    AnsweredUnsynced,
    /// As much as there is may be written and not synced.
    UnsyncedWithoutBound,
    /// The next message is passed on when the answer to the one before is there, and written later.
    PassedOnUnwritten,
    /// Nothing is looked up in the record.
    NotRecalled,
    /// A client's own key is not recorded with the answer.
    KeyNotRecorded,
    /// What the caller has settled is not recorded.
    SettlingNotRecorded,
    /// There is no end to the patience with a record that cannot be written.
    PatienceWithoutEnd,
    /// What a request that is withdrawn took off the window is not given back.
    WithdrawnKept,
    /// An older and a newer link run critical messages at the same time.
    LockIgnored,
    /// The next critical message is passed on before the answer to the one before is recorded.
    PassedOnEarly,
    /// A handler is given critical messages however many it has.
    WindowIgnored,
    /// Of those that may be at a handler at once the last is passed on first.
    WindowUnordered,
    /// Whether an answer is unrecorded is looked at before handlers are read, in a turn of `lond`.
    HeldTooSoon,
    /// Answers are recorded at the end of a turn.
    RecordedTooLate,
    /// A critical message whose handler is away is answered `error:`.
    NotTakenAnswered,
    /// A program's answer goes to another program.
    AnswerToAnother,
    /// Whose a program is, is not told: each connection counts as a user of its own.
    UsersUntold,
    /// What is in flight when a child is to hand over is forgotten.
    PendingForgotten,
    /// What a program had sent and was not taken is forgotten when it is handed over.
    UnreadForgotten,
    /// The same is handed over twice.
    HandedTwice,
    /// The answers that a program had not read are forgotten when it is handed over.
    AnswersForgotten,
    /// A person's wish to see after the links is ignored.
    ProbeIgnored,
    /// A child that was not answered goes on waiting for that answer, and asks no more.
    LostAnswerAwaited,
    /// What was found for a dial that had been given up is forgotten.
    LateAnswerForgotten,
    /// The pauses between dials are not kept.
    DialledAtOnce,
    /// After a good link was lost the pause is as long as after many failures.
    BackoffKept,
    /// A silent link is not found out.
    SilenceIgnored,
}

impl Sabotage {
    pub const ALL: [Sabotage; 67] = [
        Sabotage::NamesNotSynced,
        Sabotage::DataNotSynced,
        Sabotage::SegmentsNotSynced,
        Sabotage::RecordNotSynced,
        Sabotage::RecordSyncFailureIgnored,
        Sabotage::RecoveredUnsynced,
        Sabotage::SpoolNamesNotSynced,
        Sabotage::FailedSyncSwallowed,
        Sabotage::SegmentRemovedEarly,
        Sabotage::MarkedAhead,
        Sabotage::NeverMarked,
        Sabotage::RefusedDropped,
        Sabotage::DroppedFileKept,
        Sabotage::DroppedFileRemovedEarly,
        Sabotage::DroppedFileUntold,
        Sabotage::CompactionLosesNewest,
        Sabotage::FramesSwapped,
        Sabotage::AnswersSwapped,
        Sabotage::CriticalLost,
        Sabotage::SettledTooFar,
        Sabotage::EpochIgnored,
        Sabotage::GoAwayTooLow,
        Sabotage::GoAwayOneLess,
        Sabotage::GoAwayOneMore,
        Sabotage::CalledUnknown,
        Sabotage::CallerUnknown,
        Sabotage::AnswersBeyondWindow,
        Sabotage::WindowKept,
        Sabotage::WindowTwice,
        Sabotage::HeartbeatsUnsent,
        Sabotage::HeldUntold,
        Sabotage::AnswerTwice,
        Sabotage::WrittenFirst,
        Sabotage::DrainedUnread,
        Sabotage::RecordDropped,
        Sabotage::SequenceReset,
        Sabotage::EpochReused,
        Sabotage::AcknowledgedEarly,
        Sabotage::FailureHidden,
        Sabotage::NotRecorded,
        Sabotage::AnsweredUnsynced,
        Sabotage::UnsyncedWithoutBound,
        Sabotage::PassedOnUnwritten,
        Sabotage::NotRecalled,
        Sabotage::KeyNotRecorded,
        Sabotage::SettlingNotRecorded,
        Sabotage::PatienceWithoutEnd,
        Sabotage::WithdrawnKept,
        Sabotage::LockIgnored,
        Sabotage::PassedOnEarly,
        Sabotage::WindowIgnored,
        Sabotage::WindowUnordered,
        Sabotage::HeldTooSoon,
        Sabotage::RecordedTooLate,
        Sabotage::NotTakenAnswered,
        Sabotage::AnswerToAnother,
        Sabotage::UsersUntold,
        Sabotage::PendingForgotten,
        Sabotage::UnreadForgotten,
        Sabotage::HandedTwice,
        Sabotage::AnswersForgotten,
        Sabotage::ProbeIgnored,
        Sabotage::LostAnswerAwaited,
        Sabotage::LateAnswerForgotten,
        Sabotage::DialledAtOnce,
        Sabotage::BackoffKept,
        Sabotage::SilenceIgnored,
    ];

    /// Whether frames are changed on their way.
    pub fn is_of_frames(self) -> bool {
        matches!(
            self,
            Sabotage::FramesSwapped
                | Sabotage::AnswersSwapped
                | Sabotage::CriticalLost
                | Sabotage::SettledTooFar
                | Sabotage::EpochIgnored
                | Sabotage::GoAwayTooLow
                | Sabotage::GoAwayOneLess
                | Sabotage::GoAwayOneMore
                | Sabotage::AnswersBeyondWindow
                | Sabotage::WindowKept
                | Sabotage::WindowTwice
                | Sabotage::HeartbeatsUnsent
                | Sabotage::HeldUntold
        )
    }
}
