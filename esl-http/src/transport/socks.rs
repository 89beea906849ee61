//! A connection through a SOCKS 5 proxy: RFC 1928, and RFC 1929 where it wants to know who we are.
//!
//! Our own code, because what goes wrong before the proxy is asked for a receiver is our own side's
//! trouble, and ready-made clients do not tell that apart.

use std::net::IpAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::proxy::TunnelError;

/// What goes wrong in a step, for people.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Has a connection to the proxy go on to a host and a port.
pub(super) async fn connect(
    mut to_proxy: TcpStream,
    login: Option<(&str, &str)>,
    host: &str,
    port: u16,
) -> Result<TcpStream, TunnelError> {
    enter(&mut to_proxy, login).await.map_err(TunnelError::NotLetIn)?;
    ask(&mut to_proxy, host, port).await.map_err(TunnelError::NoConnection)?;
    Ok(to_proxy)
}

/// Section 3 of RFC 1928, and RFC 1929.
async fn enter(to_proxy: &mut TcpStream, login: Option<(&str, &str)>) -> Result<(), Cause> {
    let method = if login.is_some() { BY_PASSWORD } else { BY_NOTHING };
    to_proxy.write_all(&[VERSION, 1, method]).await?;
    match read(to_proxy).await? {
        [VERSION, chosen] if chosen == method => {}
        [VERSION, _] if login.is_some() => return Err("it takes no user and password".into()),
        [VERSION, _] => return Err("it wants to know who is asking".into()),
        _ => return Err("it does not speak SOCKS 5".into()),
    }
    let Some((user, password)) = login else { return Ok(()) };
    let mut proof = vec![1];
    for text in [user, password] {
        push_text(&mut proof, text)?;
    }
    to_proxy.write_all(&proof).await?;
    match read(to_proxy).await? {
        [_, 0] => Ok(()),
        [_, _] => Err("user and password are not accepted".into()),
    }
}

/// Sections 4 to 6 of RFC 1928. A name goes as it is, for the proxy to resolve.
async fn ask(to_proxy: &mut TcpStream, host: &str, port: u16) -> Result<(), Cause> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IS_IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IS_IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(IS_NAME);
            push_text(&mut request, host)?;
        }
    }
    request.extend(port.to_be_bytes());
    to_proxy.write_all(&request).await?;

    let [version, reply, _, kind] = read(to_proxy).await?;
    if version != VERSION {
        return Err("its answer is not SOCKS 5".into());
    }
    if reply != 0 {
        return Err(meaning(reply).into());
    }
    // Which address it goes on from is not needed, but what comes after it is.
    let address_bytes = match kind {
        IS_IPV4 => 4,
        IS_IPV6 => 16,
        IS_NAME => u16::from(to_proxy.read_u8().await?),
        _ => return Err("its answer is not SOCKS 5".into()),
    };
    let mut bound = vec![0; usize::from(address_bytes) + size_of_val(&port)];
    to_proxy.read_exact(&mut bound).await?;
    Ok(())
}

async fn read<const N: usize>(to_proxy: &mut TcpStream) -> Result<[u8; N], Cause> {
    let mut bytes = [0; N];
    to_proxy.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn push_text(message: &mut Vec<u8>, text: &str) -> Result<(), Cause> {
    let length = u8::try_from(text.len()).map_err(|_| "a name has at most 255 bytes")?;
    message.push(length);
    message.extend(text.bytes());
    Ok(())
}

/// Section 6 of RFC 1928.
fn meaning(reply: u8) -> &'static str {
    match reply {
        1 => "it has failed",
        2 => "its rules do not allow it",
        3 => "the network is unreachable",
        4 => "the host is unreachable",
        5 => "the connection was refused",
        6 => "it took too long",
        7 | 8 => "it cannot do that",
        _ => "it gave no known reason",
    }
}

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
const BY_NOTHING: u8 = 0;
const BY_PASSWORD: u8 = 2;
const IS_IPV4: u8 = 1;
const IS_NAME: u8 = 3;
const IS_IPV6: u8 = 4;
