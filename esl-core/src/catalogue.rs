//! The events that SPEC.md documents, for lists, documentation and checks.
//!
//! ESL routes any well-formed type; the catalogue is what the documented service itself publishes.

/// One documented event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CatalogueEntry {
    /// Its name.
    pub event_type: &'static str,
    /// What has happened when it is published.
    pub meaning: &'static str,
}

/// Every documented event type, by source.
pub const CATALOGUE: &[CatalogueEntry] = &[
    entry("person.created", "a person was created"),
    entry("person.updated", "a person was changed"),
    entry("person.deleted", "a person was removed"),
    entry("pet.created", "a pet was created"),
    entry("pet.updated", "a pet was changed"),
    entry("pet.deleted", "a pet was removed"),
    entry("toy.created", "a toy was created"),
    entry("toy.updated", "a toy was changed"),
    entry("toy.deleted", "a toy was removed"),
    entry("availability.changed", "the availability of a user has changed"),
    entry("availability.profile.created", "an availability profile was created"),
    entry("availability.profile.updated", "an availability profile was changed"),
    entry("availability.profile.deleted", "an availability profile was removed"),
    entry(
        "availability.schedule.triggered",
        "a schedule that sets the availability of a user has fired",
    ),
    entry("system.maintenance.scheduled", "a maintenance window was announced"),
    entry("system.rate_limit.warning", "four fifths of the hour's events are used"),
    entry("system.rate_limit.exceeded", "the hour's events are used up"),
];

const fn entry(event_type: &'static str, meaning: &'static str) -> CatalogueEntry {
    CatalogueEntry { event_type, meaning }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventType;

    #[test]
    fn every_entry_is_a_type_and_stands_there_once() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|entry| entry.event_type).collect();
        assert!(names.iter().all(|name| name.parse::<EventType>().is_ok()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 17);
    }
}
