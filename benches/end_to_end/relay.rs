//! Throughput: publish to delivery, ESL and the relay in turn.

use std::{convert::Infallible, sync::Arc, time::Instant};

use bytes::Bytes;
use esl::{
    Algorithm, CallbackPolicy, CallbackUrl, HttpTransport, Outbound, Secret, Signer, Transport,
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{Settings, cpu, load::Load, median, receiver::Receiver, service::Service, table};

pub(crate) fn compare(settings: &Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (to_relay, to_esl) = (Receiver::start().await?, Receiver::start().await?);
        let relay = start(&to_relay).await?;
        let service = Service::start(&settings.folder).await?;
        service.subscribe(&to_esl).await?;
        let load = service.load();

        let (mut rates, mut relay_rates, mut ratios) = (vec![], vec![], vec![]);
        let (mut costs, mut relay_costs) = (vec![], vec![]);
        let mut sent = 0;
        while sent < settings.events {
            let (before, used) = (to_relay.count(), cpu::used());
            let start = Instant::now();
            relay.run(settings.round, settings.connections).await?;
            to_relay.wait_for(before + settings.round).await;
            let relay_rate = settings.round as f64 / start.elapsed().as_secs_f64();
            relay_costs.push(cpu::each(used, settings.round));

            let used = cpu::used();
            let start = Instant::now();
            load.run(settings.round, settings.connections).await?;
            sent += settings.round;
            to_esl.wait_for(sent).await;
            service.wait_until_settled().await;
            let rate = settings.round as f64 / start.elapsed().as_secs_f64();
            costs.push(cpu::each(used, settings.round));

            relay_rates.push(relay_rate);
            rates.push(rate);
            ratios.push(rate / relay_rate);
        }
        let ratio = median(&mut ratios);
        println!(
            "throughput: {sent} events over {} connections: ESL {:.0}/s and {:.0} µs of the \
             processors each, relay {:.0}/s and {:.0} µs; medians of {} rounds",
            settings.connections,
            median(&mut rates),
            median(&mut costs),
            median(&mut relay_rates),
            median(&mut relay_costs),
            ratios.len(),
        );
        table::row(
            "durable publish to delivery, 512 bytes, of the relay's rate",
            &format!("{ratio:.2} ({:.2}–{:.2})", ratios[0], ratios[ratios.len() - 1]),
            "≥ 0.75",
            ratio >= 0.75,
        );
        service.esl.shutdown().await;
        anyhow::ensure!(to_esl.count() == sent, "each event came once");
        Ok(())
    })
}

/// Signs each body and POSTs it on; answers when the receiver has.
pub(crate) async fn start(receiver: &Receiver) -> anyhow::Result<Load> {
    let policy = CallbackPolicy::allow_private();
    let transport = Arc::new(HttpTransport::new(policy.clone()));
    let target = CallbackUrl::parse(&receiver.url, &policy)?;
    let signer = Signer::new(&Secret::new("your-webhook-secret")?, Algorithm::Sha256);
    let name: esl::HeaderName = "x-sapien-signature".into();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let (transport, signer) = (Arc::clone(&transport), signer.clone());
            let (target, name) = (target.clone(), name.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (transport, signer) = (Arc::clone(&transport), signer.clone());
                let (target, name) = (target.clone(), name.clone());
                async move {
                    let body = match request.into_body().collect().await {
                        Ok(body) => body.to_bytes(),
                        Err(_) => return Ok(answer(400)),
                    };
                    let headers = vec![(name, signer.sapien(&body))];
                    let timeout = std::time::Duration::from_secs(15);
                    let outbound = Outbound { url: target, headers, body, timeout, fresh: false };
                    let sent = transport.send(outbound).await;
                    Ok::<_, Infallible>(answer(sent.result.map_or(502, |answer| answer.status)))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(Load::new(&url, "/", "none", b"HTTP/1.1 200"))
}

fn answer(status: u16) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    response
}
