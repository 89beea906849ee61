//! The API from the other side.
