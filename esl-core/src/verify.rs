//! Verifying: what a receiver does with the signature headers of a delivery.
