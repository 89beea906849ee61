//! The kinds of entities that the server has: persons, their pets, and the pets' toys (SPEC.md, "Entity
//! Events"), and what belongs to availability.

use esl_core::{EntityKind, KindError, Kinds, OnDelete};
use serde_json::{Value, json};

use crate::availability;

/// All of them.
pub(crate) fn kinds() -> Kinds {
    let kinds = declared().and_then(Kinds::new);
    kinds.expect("our own kinds hold together")
}

fn declared() -> Result<Vec<EntityKind>, KindError> {
    let person = EntityKind::new("person", "persons", person())?
        .indexed("name")
        .indexed("email")
        .indexed("status")
        .embeds("pets", "pet", "owner_id", &["id", "name", "type"])
        .with_example(json!({ "name": "John Doe", "email": "john.doe@example.com" }));
    let owner = "person_01HK153X00W3Y5A7C9E1G3J5M7";
    let pet = EntityKind::new("pet", "pets", pet())?
        .indexed("name")
        .indexed("type")
        .refers("owner_id", "person", OnDelete::Clear)
        .with_example(json!({ "name": "Buddy", "type": "dog", "owner_id": owner }));
    let its = "pet_01HK153X00P2R4T6W8Y0A2C4E6";
    let toy = EntityKind::new("toy", "toys", toy())?
        .indexed("name")
        .indexed("type")
        .refers("pet_id", "pet", OnDelete::Clear)
        .with_example(json!({ "name": "Ball", "type": "rubber", "pet_id": its }));
    let mut kinds = vec![person, pet, toy];
    kinds.extend(availability::kinds()?);
    Ok(kinds)
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": name(),
            "email": {
                "description": "Where the person can be written to.",
                "type": ["string", "null"],
                "format": "email",
                "maxLength": 254,
                "default": null
            },
            "status": {
                "description": "Where the person stands, in a word of yours.",
                "type": "string",
                "pattern": "^[a-z][a-z0-9_]{0,31}$",
                "default": "active"
            }
        },
        "required": ["name"],
        "additionalProperties": false
    })
}

fn pet() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": name(),
            "type": {
                "description": "What kind of animal it is.",
                "type": "string",
                "minLength": 1,
                "maxLength": 100
            },
            "owner_id": {
                "description": "The person that it belongs to.",
                "type": ["string", "null"],
                "default": null
            }
        },
        "required": ["name", "type"],
        "additionalProperties": false
    })
}

fn toy() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": name(),
            "type": {
                "description": "What kind of toy it is.",
                "type": ["string", "null"],
                "minLength": 1,
                "maxLength": 100,
                "default": null
            },
            "pet_id": {
                "description": "The pet that it belongs to.",
                "type": ["string", "null"],
                "default": null
            }
        },
        "required": ["name"],
        "additionalProperties": false
    })
}

fn name() -> Value {
    json!({ "description": "What it is called.", "type": "string", "minLength": 1, "maxLength": 200 })
}

#[cfg(test)]
mod tests {
    #[test]
    fn our_own_kinds_hold_together() {
        let kinds = super::kinds();
        let names: Vec<_> = kinds.iter().map(|kind| kind.name().as_str()).collect();
        assert_eq!(
            names,
            [
                "availability.profile",
                "availability.schedule",
                "availability.status",
                "person",
                "pet",
                "toy"
            ]
        );
    }
}
