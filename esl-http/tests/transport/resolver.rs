//! Names lead where a test says.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use esl_http::Resolver;

/// Knows the same addresses for every name.
#[derive(Debug)]
pub(crate) struct Fixed(Vec<IpAddr>);

impl Fixed {
    pub(crate) fn to<const N: usize>(addresses: [&str; N]) -> Self {
        Self(addresses.iter().map(|address| address.parse().unwrap()).collect())
    }
}

#[async_trait]
impl Resolver for Fixed {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

/// Gives each question the next of its answers.
#[derive(Debug)]
pub(crate) struct InTurn(Mutex<VecDeque<Vec<IpAddr>>>);

impl InTurn {
    pub(crate) fn answering(answers: &[&[&str]]) -> Self {
        let addresses =
            |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Self(Mutex::new(answers.iter().map(addresses).collect()))
    }
}

#[async_trait]
impl Resolver for InTurn {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.pop_front().ok_or_else(|| io::Error::other("nobody is to ask again"))
    }
}
