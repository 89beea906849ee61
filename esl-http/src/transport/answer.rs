//! Reads what a receiver answers, as far as it is of interest.

use bytes::BytesMut;
use esl_core::{Answer, Failure};
use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming, header::RETRY_AFTER};

use super::failure;

/// Reads an answer to its end, so that its connection can be used again. One with more than
/// [`BODY_BYTES_MAX`] is left there, which closes its connection; it is an answer all the same.
pub(super) async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (head, mut body) = response.into_parts();
    let excerpt_max = if head.status.is_success() { 0 } else { Answer::EXCERPT_BYTES_MAX };
    let mut excerpt = BytesMut::new();
    let mut read = 0;
    while read <= BODY_BYTES_MAX {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| failure::of_body(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len();
        let room = excerpt_max - excerpt.len();
        excerpt.extend_from_slice(&data[..data.len().min(room)]);
    }
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after: retry_after.map(str::to_owned),
        excerpt: excerpt.freeze(),
    })
}

/// The longest head that is read; also the size of one read of the body.
pub(super) const HEAD_BYTES_MAX: u32 = 16 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024;
