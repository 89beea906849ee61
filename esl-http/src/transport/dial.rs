//! Connects to whichever of several addresses answers first.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{net::TcpStream, time::sleep};

/// Connects to one of the addresses.
///
/// They are tried in their order. While one neither answers nor refuses, the next one gets its turn
/// beside it (RFC 8305, 5), so that a dead IPv6 route does not eat the time of the IPv4 address.
pub(super) async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut addresses = addresses.iter();
    let mut dials = FuturesUnordered::new();
    loop {
        dials.extend(addresses.next().map(|&address| TcpStream::connect(address)));
        let has_more = addresses.len() > 0;
        // Both arms may be dropped: the dials go on, and the pause begins anew.
        let finished = tokio::select! {
            finished = dials.next() => finished,
            () = sleep(PAUSE), if has_more => None,
        };
        match finished {
            Some(Ok(connection)) => {
                connection.set_nodelay(true)?;
                return Ok(connection);
            }
            Some(Err(error)) if dials.is_empty() && !has_more => return Err(error),
            None if dials.is_empty() => return Err(io::ErrorKind::AddrNotAvailable.into()),
            Some(Err(_)) | None => {}
        }
    }
}

/// RFC 8305's recommendation.
const PAUSE: Duration = Duration::from_millis(250);
