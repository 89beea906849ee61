//! What storages that keep rows write into them, and what those mean: the same in each, for good.
//!
//! How a database spells a column is an adapter's own. That 4 stands for
//! [`AttemptError::Connect`](crate::AttemptError::Connect), that spaces keep the patterns of a subscription apart,
//! and that an open delivery of a subscription that is paused is shown as held, is said here.
//!
//! ```
//! use esl_core::{AttemptError, storage::encoding};
//!
//! let number = encoding::attempt_error_number(AttemptError::Connect);
//! assert_eq!(encoding::attempt_error(number), Some(AttemptError::Connect));
//! assert_eq!(encoding::attempt_error(99), None, "no storage of this version has written that");
//! ```

mod deliveries;
mod numbers;
mod texts;

pub use self::{
    deliveries::{DeliveryRow, EventHead, LaneHead, Standing},
    numbers::{
        Ending, attempt_error, attempt_error_number, audience, audience_number, duration_number,
        replay_of, replay_of_number, token_kind, token_kind_number,
    },
    texts::{delays, delays_text, headers, headers_text, patterns, patterns_text},
};
