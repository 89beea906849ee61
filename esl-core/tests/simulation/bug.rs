//! Bugs that are planted on purpose, in what surrounds the engine, to see that they are found.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Storage says that it has settled, and has not.
    SettlementDropped,
    /// Storage says that it has committed, and does so a little later.
    AcknowledgedBeforeCommit,
    /// A lane has one send more at a time than its subscription allows.
    OneMoreInFlight,
    /// Storage forgets a charged attempt when it hands a delivery out.
    OneAttemptForgotten,
}
