//! What a public name leads to is judged at every connect, whoever answered it.

use std::time::Duration;

use esl_core::{AttemptError, CallbackPolicy};
use esl_http::HttpTransport;

use crate::{
    answer,
    authority::Authority,
    detail, error,
    receiver::{has_visitor, listen},
    resolver::InTurn,
    send, send_fresh,
};

#[tokio::test]
async fn no_answer_without_a_public_address_is_connected_to() {
    let listener = listen().await;
    let port = listener.local_addr().unwrap().port();
    let mut failing = Vec::new();
    for &(answers, why) in REFUSED {
        // One that slips through leads nowhere or here, and must not be waited for.
        let transport = HttpTransport::builder()
            .with_resolver(InTurn::answering(&[answers]))
            .with_connect_timeout(Duration::from_millis(200))
            .build()
            .unwrap();
        let sent = send(&transport, &format!("https://hooks.your-app.com:{port}/hook")).await;
        let has_connected = sent.timings.connect.is_some() || has_visitor(&listener).await;
        let shown = answers.iter().any(|address| detail(&sent).contains(address));
        if error(&sent) != AttemptError::RefusedAddress || has_connected || shown {
            failing.push(format!("{answers:?} ({why}): {:?}, {}", error(&sent), detail(&sent)));
        }
    }
    assert!(failing.is_empty(), "{} rows:\n{}", failing.len(), failing.join("\n"));
}

#[tokio::test]
async fn of_several_addresses_only_the_permitted_one_is_called() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["hooks.your-app.com"], 2999).await;
    let url = format!("https://hooks.your-app.com:{}/hook", receiver.address().port());
    let mut failing = Vec::new();
    for (answers, why) in [
        (&["127.0.0.1"][..], "alone"),
        (&["::ffff:127.0.0.1"], "mapped, which is the address itself"),
        (&["10.0.0.1", "127.0.0.1"], "private ahead"),
        (&["127.0.0.1", "10.0.0.1"], "private behind"),
        (&["169.254.169.254", "127.0.0.1", "::1"], "metadata and loopback around it"),
        (&["127.0.0.2", "::ffff:127.0.0.2", "127.0.0.1"], "the rest of this machine ahead"),
        (&["64:ff9b::127.0.0.1", "fd00::1", "127.0.0.1"], "NAT64 and unique-local ahead"),
        (&["127.0.0.1", "127.0.0.1"], "twice"),
    ] {
        // It stands for what is public, which no test may call.
        let policy = CallbackPolicy::public().with_allowed("127.0.0.1".parse().unwrap());
        let resolver = InTurn::answering(&[answers]);
        let transport =
            authority.believer().with_policy(policy).with_resolver(resolver).build().unwrap();
        let sent = send(&transport, &url).await;
        if !matches!(&sent.result, Ok(answer) if answer.status == 200) {
            failing.push(format!("{answers:?} ({why}): {}", detail(&sent)));
        }
    }
    assert!(failing.is_empty(), "{} rows:\n{}", failing.len(), failing.join("\n"));
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_at_the_next_connect_is_refused_there() {
    let authority = Authority::new();
    let receiver = authority.receiver(&["rebinds.your-app.com"], 2999).await;
    let url = format!("https://rebinds.your-app.com:{}/hook", receiver.address().port());
    for (answers, why) in [
        (&["127.0.0.2"][..], "the rest of this machine"),
        (&["::1"], "loopback"),
        (&["10.0.0.1", "192.168.0.1"], "private"),
        (&["169.254.169.254"], "metadata"),
        (&["::ffff:169.254.169.254"], "metadata, mapped"),
        (&["64:ff9b::a9fe:a9fe"], "metadata, NAT64"),
    ] {
        let before = receiver.accepted();
        let policy = CallbackPolicy::public().with_allowed("127.0.0.1".parse().unwrap());
        let resolver = InTurn::answering(&[&["127.0.0.1"], answers, &["127.0.0.1"]]);
        let transport =
            authority.believer().with_policy(policy).with_resolver(resolver).build().unwrap();
        assert_eq!(answer(send_fresh(&transport, &url).await).status, 200, "{why}");
        let moved = send_fresh(&transport, &url).await;
        assert_eq!(error(&moved), AttemptError::RefusedAddress, "{why}: {}", detail(&moved));
        assert_eq!(receiver.accepted(), before + 1, "{why}");
        assert_eq!(answer(send_fresh(&transport, &url).await).status, 200, "{why}: moved back");
    }
}

/// What the resolver answers, and why nothing of it may be called.
const REFUSED: &[(&[&str], &str)] = &[
    (&["0.0.0.0"], "this machine"),
    (&["0.255.255.255"], "this network"),
    (&["10.0.0.1"], "private"),
    (&["10.255.255.255"], "private, last"),
    (&["100.64.0.1"], "carrier-grade NAT"),
    (&["100.100.100.200"], "Alibaba's metadata"),
    (&["127.0.0.1"], "loopback"),
    (&["127.0.0.53"], "the resolver itself"),
    (&["127.255.255.255"], "loopback, last"),
    (&["168.63.129.16"], "Azure's platform"),
    (&["169.254.169.254"], "metadata"),
    (&["169.254.170.2"], "metadata of Amazon's containers"),
    (&["172.16.0.1"], "private"),
    (&["172.31.255.255"], "private, last"),
    (&["192.0.0.170"], "NAT64 discovery"),
    (&["192.0.0.192"], "Oracle's metadata"),
    (&["192.0.2.1"], "documentation"),
    (&["192.88.99.1"], "6to4 relay"),
    (&["192.168.0.1"], "private"),
    (&["198.18.0.1"], "benchmarking"),
    (&["198.51.100.1"], "documentation"),
    (&["203.0.113.1"], "documentation"),
    (&["224.0.0.1"], "multicast"),
    (&["240.0.0.1"], "reserved"),
    (&["255.255.255.255"], "broadcast"),
    (&["::"], "this machine"),
    (&["::1"], "loopback"),
    (&["::127.0.0.1"], "compatible"),
    (&["::ffff:127.0.0.1"], "mapped loopback"),
    (&["::ffff:10.0.0.1"], "mapped private"),
    (&["::ffff:a9fe:a9fe"], "mapped metadata"),
    (&["::ffff:0:127.0.0.1"], "translated loopback"),
    (&["64:ff9b::127.0.0.1"], "NAT64, loopback"),
    (&["64:ff9b::a9fe:a9fe"], "NAT64, metadata"),
    (&["64:ff9b:1::8.8.8.8"], "local NAT64"),
    (&["100::1"], "discard"),
    (&["2001::f5ff:fffe"], "Teredo, 10.0.0.1 obfuscated"),
    (&["2001:20::1"], "ORCHID"),
    (&["2001:db8::1"], "documentation"),
    (&["2002:7f00:1::1"], "6to4, loopback"),
    (&["2606:4700::5efe:10.0.0.1"], "ISATAP, private"),
    (&["fd00::5efe:8.8.8.8"], "ISATAP, but unique-local"),
    (&["fe80::5efe:8.8.8.8"], "ISATAP, but link-local"),
    (&["3fff::1"], "documentation"),
    (&["5f00::1"], "segment routing"),
    (&["fd00:ec2::254"], "Amazon's metadata"),
    (&["fe80::1"], "link-local"),
    (&["fec0::1"], "site-local"),
    (&["ff02::1"], "multicast"),
    (&["127.0.0.1", "::1"], "loopback in both families"),
    (&["10.0.0.1", "fd00::1", "169.254.169.254"], "three kinds, none public"),
    (&["::ffff:127.0.0.1", "127.0.0.1", "127.0.0.1"], "the same in all spellings"),
];
