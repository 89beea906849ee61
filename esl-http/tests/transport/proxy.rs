//! Deliveries that leave through a proxy.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use esl_core::{AttemptError, CallbackPolicy};
use esl_http::{HttpTransport, HttpTransportBuilder};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional,
    },
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};

use crate::{
    answer,
    authority::Authority,
    detail, error,
    ports::free_port,
    receiver::{Receiver, has_visitor, listen, with_body},
    resolver::Fixed,
    send,
};

/// What a proxy was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// A proxy that connects to loopback whatever it is asked for, and keeps what that was.
struct Proxy {
    address: SocketAddr,
    asked: Asked,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Http,
    /// Answers every request for a connection with this line.
    HttpSaying(&'static str),
    Socks5,
    /// Answers every request for a connection with this code (RFC 1928, 6).
    Socks5Saying(u8),
    /// Chooses this way to log in (RFC 1928, 3), whatever is offered.
    Socks5Wanting(u8),
    /// Accepts no password.
    Socks5Refusing,
    /// Takes the connection and says nothing.
    Silent,
}

impl Proxy {
    async fn start(kind: Kind) -> Self {
        let listener = listen().await;
        let address = listener.local_addr().unwrap();
        let asked = Asked::default();
        let shared = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let asked = Arc::clone(&shared);
                connections.spawn(async move {
                    // An error is the other side's end.
                    let _ = match kind {
                        Kind::Http => http(stream, &asked, "200 OK").await,
                        Kind::HttpSaying(status) => http(stream, &asked, status).await,
                        Kind::Socks5 => socks5(stream, &asked, 0).await,
                        Kind::Socks5Saying(code) => socks5(stream, &asked, code).await,
                        Kind::Socks5Wanting(method) => reply(stream, &[&[5, method]]).await,
                        Kind::Socks5Refusing => reply(stream, &[&[5, 2], &[1, 1]]).await,
                        Kind::Silent => std::future::pending().await,
                    };
                });
            }
        });
        Self { address, asked, task }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn http(stream: TcpStream, asked: &Asked, status: &str) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    asked.lock().unwrap().push(head.clone());
    stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await?;
    if status.starts_with('2') {
        let target = head.split(' ').nth(1).unwrap();
        relay(stream.into_inner(), target.rsplit_once(':').unwrap().1.parse().unwrap()).await?;
    }
    Ok(())
}

/// RFC 1928, and RFC 1929 where the client offers it.
async fn socks5(mut stream: TcpStream, asked: &Asked, code: u8) -> io::Result<()> {
    assert_eq!(stream.read_u8().await?, 5);
    let mut methods = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut methods).await?;
    let mut who = String::new();
    if methods == [2] {
        stream.write_all(&[5, 2]).await?;
        assert_eq!(stream.read_u8().await?, 1);
        let user = text(&mut stream).await?;
        let password = text(&mut stream).await?;
        who = format!("{user}:{password}@");
        stream.write_all(&[1, 0]).await?;
    } else {
        assert_eq!(methods, [0]);
        stream.write_all(&[5, 0]).await?;
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    assert_eq!(request[..3], [5, 1, 0], "version 5, CONNECT, reserved");
    let host = match request[3] {
        1 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        3 => text(&mut stream).await?,
        4 => Ipv6Addr::from(stream.read_u128().await?).to_string(),
        other => panic!("there is no kind of address {other}"),
    };
    let port = stream.read_u16().await?;
    asked.lock().unwrap().push(format!("{who}{host} {port}"));
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    if code == 0 { relay(stream, port).await } else { Ok(()) }
}

/// Answers whatever is said, one after the other.
async fn reply(mut stream: TcpStream, answers: &[&[u8]]) -> io::Result<()> {
    for answer in answers {
        stream.read_buf(&mut Vec::new()).await?;
        stream.write_all(answer).await?;
    }
    // Until the client has gone.
    stream.read_u8().await.map(drop)
}

async fn text(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

async fn relay(mut stream: TcpStream, port: u16) -> io::Result<()> {
    let mut target = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    copy_bidirectional(&mut stream, &mut target).await.map(drop)
}

/// Nobody but the proxy resolves the receivers' names.
fn through(builder: HttpTransportBuilder, proxy: &str) -> HttpTransport {
    builder.with_proxy(proxy.parse().unwrap()).with_resolver(Fixed::to([])).build().unwrap()
}

/// Calls public receivers only, but believes the authority.
fn public(authority: &Authority) -> HttpTransportBuilder {
    authority.believer().with_policy(CallbackPolicy::public())
}

#[tokio::test]
async fn an_http_proxy_is_asked_for_a_tunnel_and_sees_no_more() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["hooks.your-app.com"], 2999).await;
    let port = receiver.address().port();
    let proxy = Proxy::start(Kind::Http).await;
    let url = format!("http://esl:p%40ss@{}", proxy.address);
    let transport = through(public(&authority), &url);
    for _ in 0..2 {
        let sent = send(&transport, &format!("https://hooks.your-app.com:{port}/hook")).await;
        assert_eq!(answer(sent).status, 200);
    }
    let target = format!("hooks.your-app.com:{port}");
    let head = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\
         Proxy-Authorization: Basic ZXNsOnBAc3M=\r\n\r\n"
    );
    assert_eq!(proxy.asked(), [head], "once: the tunnel is kept");
}

#[tokio::test]
async fn a_socks_proxy_is_given_the_name() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["hooks.your-app.com"], 2999).await;
    let port = receiver.address().port();
    let url = format!("https://hooks.your-app.com:{port}/hook");
    for (credentials, who) in [("", ""), ("esl:p%40ss@", "esl:p@ss@")] {
        let proxy = Proxy::start(Kind::Socks5).await;
        let address = proxy.address;
        let transport = through(public(&authority), &format!("socks5://{credentials}{address}"));
        for _ in 0..2 {
            assert_eq!(answer(send(&transport, &url).await).status, 200);
        }
        assert_eq!(proxy.asked(), [format!("{who}hooks.your-app.com {port}")]);
    }
}

#[tokio::test]
async fn plain_http_and_addresses_go_through_the_tunnel_too() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let port = receiver.address().port();
    for (kind, scheme) in [(Kind::Http, "http"), (Kind::Socks5, "socks5")] {
        let proxy = Proxy::start(kind).await;
        let builder = HttpTransport::builder().with_policy(CallbackPolicy::allow_private());
        let transport = through(builder, &format!("{scheme}://{}", proxy.address));
        for host in ["127.0.0.1", "[::1]"] {
            let sent = send(&transport, &format!("http://{host}:{port}/hook")).await;
            assert_eq!(answer(sent).status, 200, "{kind:?} {host}");
        }
        let asked = proxy.asked().concat();
        let expected = match kind {
            Kind::Http => [format!("CONNECT 127.0.0.1:{port} "), format!("CONNECT [::1]:{port} ")],
            _ => [format!("127.0.0.1 {port}"), format!("::1 {port}")],
        };
        assert!(expected.iter().all(|part| asked.contains(part)), "{asked}");
    }
}

#[tokio::test]
async fn the_proxy_may_have_a_name_of_its_own() {
    let receiver = Receiver::answering(with_body("200 OK", "OK")).await;
    let proxy = Proxy::start(Kind::Http).await;
    let transport = HttpTransport::builder()
        .with_policy(CallbackPolicy::allow_private())
        .with_proxy(format!("http://proxy.internal:{}", proxy.address.port()).parse().unwrap())
        .with_resolver(Fixed::to(["127.0.0.1"]))
        .build()
        .unwrap();
    assert_eq!(answer(send(&transport, &receiver.url()).await).status, 200);
    let nowhere = through(HttpTransport::builder(), "http://proxy.internal:3128");
    let sent = send(&nowhere, "https://your-app.com/hook").await;
    assert_eq!(error(&sent), AttemptError::Unsent);
    assert!(!detail(&sent).contains("internal"), "{}", detail(&sent));
}

#[tokio::test]
async fn what_a_url_says_of_itself_is_refused_before_the_proxy_is_asked() {
    let proxy = Proxy::start(Kind::Http).await;
    let transport = through(HttpTransport::builder(), &format!("http://{}", proxy.address));
    for url in [
        "http://your-app.com/hook",
        "https://127.0.0.1/hook",
        "https://10.0.0.1/hook",
        "https://[::1]/hook",
        "https://[::ffff:169.254.169.254]/hook",
        "https://localhost/hook",
        "https://metadata.google.internal/hook",
    ] {
        assert_eq!(error(&send(&transport, url).await), AttemptError::RefusedAddress, "{url}");
    }
    assert_eq!(proxy.asked(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_makes_no_connection_is_a_failure_to_connect() {
    for (kind, scheme, words) in [
        (Kind::HttpSaying("403 Forbidden"), "http", "unsuccessful"),
        (Kind::HttpSaying("302 Found\r\nlocation: http://127.0.0.1/"), "http", "unsuccessful"),
        (Kind::Socks5Saying(2), "socks5", "rules do not allow"),
        (Kind::Socks5Saying(5), "socks5", "refused"),
    ] {
        let proxy = Proxy::start(kind).await;
        let url = format!("{scheme}://user:hunter2@{}", proxy.address);
        let transport = through(HttpTransport::builder(), &url);
        let sent = send(&transport, "https://your-app.com/hook").await;
        assert_eq!(error(&sent), AttemptError::Connect, "{kind:?}");
        assert!(detail(&sent).contains(words), "{kind:?}: {}", detail(&sent));
        for secret in ["hunter2", &proxy.address.port().to_string()] {
            assert!(!detail(&sent).contains(secret), "{}", detail(&sent));
        }
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_let_us_in_is_no_fault_of_the_receiver() {
    for (kind, url, words) in [
        (
            Kind::HttpSaying("407 Proxy Authentication Required"),
            "http://user:hunter2@",
            "authorization required",
        ),
        (Kind::HttpSaying("407 Proxy Authentication Required"), "http://", "authorization"),
        (Kind::Socks5Refusing, "socks5://user:hunter2@", "not accepted"),
        (Kind::Socks5Wanting(0xff), "socks5://user:hunter2@", "takes no user and password"),
        (Kind::Socks5Wanting(0xff), "socks5://", "who is asking"),
        (Kind::Socks5Wanting(0), "socks5://user:hunter2@", "takes no user and password"),
    ] {
        let proxy = Proxy::start(kind).await;
        let transport = through(HttpTransport::builder(), &format!("{url}{}", proxy.address));
        let sent = send(&transport, "https://your-app.com/hook").await;
        assert_eq!(error(&sent), AttemptError::Unsent, "{kind:?} {url}");
        assert!(detail(&sent).starts_with("the egress proxy does not let us in: "));
        assert!(detail(&sent).contains(words), "{kind:?} {url}: {}", detail(&sent));
        assert!(!detail(&sent).contains("hunter2"), "{}", detail(&sent));
    }
}

#[tokio::test]
async fn without_the_proxy_nothing_is_sent_and_one_that_says_nothing_connects_to_nobody() {
    let closed = format!("http://127.0.0.1:{}", free_port());
    let transport = through(HttpTransport::builder(), &closed);
    let sent = send(&transport, "https://your-app.com/hook").await;
    assert_eq!(error(&sent), AttemptError::Unsent);
    assert_eq!(detail(&sent), "the egress proxy cannot be reached: connection refused");

    let silent = Proxy::start(Kind::Silent).await;
    for scheme in ["http", "socks5"] {
        let builder = HttpTransport::builder().with_connect_timeout(Duration::from_millis(100));
        let transport = through(builder, &format!("{scheme}://{}", silent.address));
        let sent = send(&transport, "https://your-app.com/hook").await;
        assert_eq!(error(&sent), AttemptError::Connect);
        assert_eq!(detail(&sent), "no connection within 100ms");
    }
}

#[tokio::test]
async fn nothing_goes_past_the_proxy() {
    let receiver = listen().await;
    let port = receiver.local_addr().unwrap().port();
    let proxy = Proxy::start(Kind::HttpSaying("502 Bad Gateway")).await;
    let builder = HttpTransport::builder().with_policy(CallbackPolicy::allow_private());
    let transport = through(builder, &format!("http://{}", proxy.address));
    for _ in 0..3 {
        let sent = send(&transport, &format!("http://127.0.0.1:{port}/hook")).await;
        assert_eq!(error(&sent), AttemptError::Connect);
    }
    assert_eq!(proxy.asked().len(), 3);
    assert!(!has_visitor(&receiver).await);
}
