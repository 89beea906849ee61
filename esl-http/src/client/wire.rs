//! How ids, numbers and words are read that the rest of ESL has no reader for.

use esl_core::{EventType, Secret, Seq};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// A [`Seq`].
pub(super) fn seq<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seq, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if number > Seq::MAX.get() {
        return Err(D::Error::custom("a seq has 40 bits"));
    }
    Ok(Seq::new(number))
}

pub(super) fn event_type<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<EventType, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

pub(super) fn secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Secret>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(Secret::new).transpose().map_err(D::Error::custom)
}

pub(super) fn write_secret<S: Serializer>(
    secret: &Option<Secret>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(serializer)
}

pub(super) fn write_seq<S: Serializer>(
    seq: &Option<Seq>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    seq.map(Seq::get).serialize(serializer)
}
