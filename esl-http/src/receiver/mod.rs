//! What a receiver does with a delivery.
