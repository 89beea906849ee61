//! Hints between engines.

use esl_core::{LaneId, Wake};

use crate::{
    server,
    world::{connected, soon},
};

#[tokio::test(flavor = "multi_thread")]
async fn hints_reach_the_other_engines_and_not_the_one_that_gives_them() {
    let url = server::for_esl(&server::fresh());
    let (mut wakes, mut links) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut broker = esl_amqp::Broker::new(url.parse().unwrap());
        wakes.push(broker.wake());
        let link = broker.start();
        connected(&link).await;
        links.push(link);
    }
    let lanes = |numbers: &[u64]| numbers.iter().map(|n| LaneId::new(*n)).collect::<Vec<_>>();
    wakes[0].notify(&lanes(&[7, 3, 7]));
    for other in &wakes[1..] {
        assert_eq!(soon(other.listen()).await, lanes(&[3, 7]));
    }
    wakes[1].notify(&lanes(&[5]));
    // What it gave itself would have come before.
    assert_eq!(soon(wakes[0].listen()).await, lanes(&[5]));
    for link in links {
        link.shutdown().await;
        assert_eq!(link.state().connected_since, None);
    }
}
