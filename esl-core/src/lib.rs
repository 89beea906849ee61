//! The words, rules, traits and engine of ESL, the Event Service Layer.

mod catalogue;
mod envelope;
mod event;
mod event_type;
mod grant;
mod id;
mod receiver;
mod retry_after;
mod signing;
mod tenancy;
mod tier;
mod time;
mod verify;

#[cfg(feature = "engine")]
mod audit;
#[cfg(feature = "engine")]
mod blob;
#[cfg(feature = "engine")]
mod callback;
#[cfg(feature = "engine")]
pub mod circuit;
#[cfg(feature = "engine")]
mod clock;
#[cfg(feature = "engine")]
mod credentials;
#[cfg(feature = "engine")]
pub mod delivery;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "engine")]
mod entity;
#[cfg(feature = "engine")]
mod event_types;
#[cfg(feature = "engine")]
mod keyring;
#[cfg(feature = "engine")]
mod link;
#[cfg(feature = "engine")]
mod memory;
#[cfg(feature = "engine")]
mod outbox;
#[cfg(feature = "engine")]
mod replay;
#[cfg(feature = "engine")]
mod retry;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
mod subscription;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "engine")]
mod transport;
#[cfg(feature = "engine")]
mod verdict;
#[cfg(feature = "engine")]
mod wake;

pub use catalogue::{CATALOGUE, CatalogueEntry};
pub use envelope::{
    DataRef, DataRefKind, ENVELOPE_VERSION, Envelope, SealedEvent, data_ref, erased, relinked,
    seal, seal_with_reference,
};
pub use event::{Metadata, NewEvent, Origin};
pub use event_type::{EventPattern, EventPatternError, EventType, EventTypeError};
pub use grant::{NewToken, Renewed, Revoked, Rotated, Rotation, TokenFamily};
pub use id::{
    DeliveryId, EventId, IdError, InstallationId, LaneId, OrganizationId, ReplayId, RequestId, Seq,
    SubscriptionId, WorkerId,
};
pub use receiver::{
    Begun, Change, Changes, Event, EventError, EventKey, MemorySeen, Seen, SeenError, payload,
};
pub use retry_after::retry_after;
pub use signing::{Algorithm, Secret, SecretError, Signer, UnknownAlgorithm};
pub use tenancy::{Client, Digest, Organization, Scope, Scopes, Token, TokenKind, UnknownScope};
pub use tier::{
    Allowance, Crossed, Hour, Limit, NoLimit, Plan, Threshold, Tier, Tiers, UnknownTier, Usage,
};
pub use time::{Timestamp, TimestampError};
pub use verify::{Scheme, Verified, Verifier, VerifyError};

#[cfg(feature = "engine")]
pub use self::{
    audit::{Action, Actor, AuditEntry, AuditNumber, UnknownAction},
    blob::{
        BlobError, BlobKey, BlobPages, BlobStore, BlobStream, MemoryBlobStore, PutId, StoredBlob,
    },
    callback::{
        CallbackAllowList, CallbackAllowListError, CallbackPolicy, CallbackUrl, CallbackUrlError,
    },
    clock::{Chance, Clock, Monotonic, SystemChance, SystemClock},
    credentials::ClientSecret,
    delivery::{Attempt, AttemptError, Delivery, DeliveryState, Timings},
    engine::{
        Announced, Esl, EslBuilder, Maintenance, MaintenanceError, PublishError, Published,
        Publisher, Role, Status,
    },
    entity::{EntityId, EntityIdError, EntityKey, KindName, KindNameError},
    event_types::EventTypeEntry,
    keyring::{
        EncryptionKey, EncryptionKeyError, KeyId, Keyring, KeyringError, NoRandomness, OpenError,
        SealedPlace, SecretField,
    },
    link::{LinkError, LinkKey},
    memory::MemoryStorage,
    outbox::Prepared,
    replay::{NewReplay, Replay, ReplayNumber, ReplayOf, ReplayRange, ReplayState},
    retry::{AfterFailure, Draw, RetryPolicy},
    subscription::{
        CustomHeaderError, CustomHeaders, DisabledReason, HELD_MAX, JsonObject, JsonObjectError,
        NewSubscription, OnExhausted, OptionsUpdate, RetiringSecret, RotationUnderWay,
        SecretChange, SendOrder, Subscription, SubscriptionOptions, SubscriptionUpdate,
        expires_until,
    },
    transport::{Answer, Failure, HeaderName, Outbound, Sent, Transport},
    verdict::{Verdict, judge},
    wake::{InProcessWake, Wake},
};

#[cfg(feature = "entities")]
pub use self::{
    engine::{Entities, Shown, ShownPage, Transaction, Written},
    entity::{
        DOCUMENT_BYTES_MAX, DOCUMENT_LEVELS_MAX, Document, Entity, EntityError, EntityKind,
        FORBIDDEN_NAME, Fault, KindError, Kinds, NotSortable, OnDelete, Representation, Rules,
        Said, changes,
    },
};
