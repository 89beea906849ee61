//! Lists, page by page or item by item.

use std::{fmt, marker::PhantomData, num::NonZeroU8};

use futures_util::{Stream, TryStreamExt, stream};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Client, ClientError, ClientErrorKind};

/// A list of the API, of which nothing was asked yet.
///
/// ```no_run
/// # async fn example(client: esl_http::client::Client) -> Result<(), esl_http::client::ClientError> {
/// use futures_util::TryStreamExt;
///
/// let mut events = client.events().of_type("person.updated").stream();
/// while let Some(event) = events.try_next().await? {
///     println!("{} {}", event.seq.get(), event.id);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct List<T> {
    client: Client,
    path: String,
    parameters: Vec<(String, String)>,
    limit: NonZeroU8,
    items: PhantomData<fn() -> T>,
}

/// A part of a list.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items.
    pub data: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
}

impl<T: DeserializeOwned> List<T> {
    pub(super) fn new(client: &Client, path: impl Into<String>) -> Self {
        Self {
            client: client.clone(),
            path: path.into(),
            parameters: Vec::new(),
            limit: LIMIT_MAX,
            items: PhantomData,
        }
    }

    /// With a parameter of the query: a filter, or `sort`.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// How many items a page has at most, up to 100. Defaults to that. A page that would be larger than a
    /// client holds has fewer.
    pub const fn limit(mut self, limit: NonZeroU8) -> Self {
        self.limit = limit;
        self
    }

    /// One page: the first, or the one that a cursor leads to.
    ///
    /// # Errors
    /// See [`ClientError`]. [`TooLarge`](ClientErrorKind::TooLarge) only if a single item is.
    pub async fn page(&self, cursor: Option<&str>) -> Result<Page<T>, ClientError> {
        let mut limit = self.limit;
        self.page_within(&mut limit, cursor).await
    }

    /// A page of so many items at most, or of as many fewer as a client holds; the limit is then that.
    async fn page_within(
        &self,
        limit: &mut NonZeroU8,
        cursor: Option<&str>,
    ) -> Result<Page<T>, ClientError> {
        loop {
            let result = self.ask(*limit, cursor).await;
            match (result, smaller(*limit)) {
                (Err(error), Some(smaller)) if error.kind() == ClientErrorKind::TooLarge => {
                    *limit = smaller;
                }
                (result, _) => return result,
            }
        }
    }

    async fn ask(&self, limit: NonZeroU8, cursor: Option<&str>) -> Result<Page<T>, ClientError> {
        let mut call = self.client.call(Method::GET, &self.path).query("limit", limit.to_string());
        for (name, value) in &self.parameters {
            call = call.query(name.as_str(), value.as_str());
        }
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        call.send().await?.json()
    }

    /// All items, one after another; a page is asked for when the one before is used up. After an error the
    /// stream is over.
    pub fn stream(self) -> impl Stream<Item = Result<T, ClientError>> + Send + Unpin + use<T>
    where
        T: Send + 'static,
    {
        let limit = self.limit;
        let pages = stream::try_unfold((self, limit, Next::First), async |(list, limit, next)| {
            let mut limit = limit;
            let page = match &next {
                Next::First => list.page_within(&mut limit, None).await?,
                Next::From(cursor) => list.page_within(&mut limit, Some(cursor)).await?,
                Next::None => return Ok(None),
            };
            let next = page.next_cursor.map_or(Next::None, Next::From);
            // Large items mostly come together, but not for ever.
            let limit = limit.saturating_add(limit.get()).min(list.limit);
            Ok(Some((stream::iter(page.data.into_iter().map(Ok)), (list, limit, next))))
        });
        Box::pin(pages.try_flatten())
    }

    /// All items at once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn all(self) -> Result<Vec<T>, ClientError>
    where
        T: Send + 'static,
    {
        self.stream().try_collect().await
    }
}

/// The limit to try after one that was too large: a quarter, since each try may cost as much as a client holds.
fn smaller(limit: NonZeroU8) -> Option<NonZeroU8> {
    (limit > NonZeroU8::MIN).then(|| NonZeroU8::new(limit.get() / 4).unwrap_or(NonZeroU8::MIN))
}

enum Next {
    First,
    From(String),
    None,
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List").field("path", &self.path).finish_non_exhaustive()
    }
}

const LIMIT_MAX: NonZeroU8 = NonZeroU8::new(100).expect("it is not zero");
