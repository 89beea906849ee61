//! Sending: sign, POST, judge, and hand the settlement on.

use std::{sync::Arc, time::Duration};

use super::{
    driver::Driver,
    inbox::SettleRequest,
    lanes::{Bearing, Sending},
    notices::{self, LastAttempt},
};
use crate::{
    AfterFailure, Answer, Attempt, AttemptError, DeliveryId, DisabledReason, Failure, OnExhausted,
    Outbound, SendOrder, Sent, Timestamp, Verdict, judge,
    storage::{Outcome, Settlement, SwitchOff},
};

/// Sends a delivery, and then whatever is next, until there is nothing left to send.
pub(crate) async fn run(driver: Arc<Driver>, mut send: Sending) {
    loop {
        // Dropped in mid-attempt, a send is not settled: it is made again by whoever has the lane
        // next. The receiver may see it twice, with the same id.
        let tries = tokio::select! {
            biased;
            () = driver.abort.cancelled() => return,
            tries = attempt(&driver, &send) => tries,
        };
        let Some(next) = finish(&driver, &send, tries) else { return };
        if driver.is_starting() {
            // Sends start in the order in which they were picked.
            driver.begin(next);
            return;
        }
        send = next;
    }
}

/// One try, as it came out.
struct Tried {
    number: u32,
    started_at: Timestamp,
    sent: Sent,
}

/// One attempt; two, where the first ran into a kept connection that was closed already.
async fn attempt(driver: &Driver, send: &Sending) -> Vec<Tried> {
    let mut tries = Vec::with_capacity(1);
    // Where one kept connection was closed, others may be, too: the second try takes none of them.
    for (number, fresh) in [(send.job.attempts + 1, false), (send.job.attempts + 2, true)] {
        // The first try has taken its time; the second must end in the epoch, too.
        let time_left = match fresh {
            true => driver.lanes().time_left(&send.worker, driver.clock.monotonic()),
            false => send.target.timeout,
        };
        if time_left.is_zero() {
            break;
        }
        let started_at = driver.clock.utc();
        // Whether a link is genuine and lasts is judged by storage's time, too.
        let body = driver.outgoing(&send.job.event, driver.now().utc);
        let headers = &driver.defaults.headers;
        let outbound = Outbound {
            url: send.target.subscription.callback_url.clone(),
            headers: headers.of(&send.target, &send.job, &body, number, started_at),
            body,
            timeout: send.target.timeout.min(time_left),
            fresh,
        };
        let sent = driver.transport.send(outbound).await;
        let is_stale = judge(&sent.result, started_at) == Verdict::Stale;
        tries.push(Tried { number, started_at, sent });
        if !is_stale {
            break;
        }
    }
    tries
}

/// Turns what came out into a settlement and the lane's new bearing; returns the next send.
fn finish(driver: &Driver, send: &Sending, mut tries: Vec<Tried>) -> Option<Sending> {
    let now = driver.now();
    let last = tries.last().expect("there is always a first try");
    let verdict = judge(&last.sent.result, now.utc);
    report(send, last, verdict);
    if let (Verdict::Unsent, Err(failure)) = (verdict, &last.sent.result) {
        driver.tell_of_trouble(&failure.detail, now.monotonic);
    }

    let is_unsent = verdict == Verdict::Unsent;
    let charged = send.job.charged + u32::from(!send.is_probe && !is_unsent);
    let outcome = outcome(driver, send, verdict, charged, now.utc);
    let is_last = outcome == Outcome::Exhausted;
    let bearing = match verdict {
        Verdict::Accepted => Bearing::Well,
        Verdict::Gone | Verdict::Stale => {
            Bearing::Failing { retry_after: None, is_strained: false, is_last }
        }
        Verdict::Failed { retry_after, is_strained } => {
            Bearing::Failing { retry_after, is_strained, is_last }
        }
        Verdict::Unsent => Bearing::Unasked(UNSENT_DELAY),
    };
    let options = &send.target.subscription.options;

    let mut lanes = driver.lanes();
    let finished = lanes.finished(send, bearing, now);
    let reason = match verdict {
        Verdict::Gone => Some(DisabledReason::Gone),
        Verdict::Accepted | Verdict::Unsent => None,
        Verdict::Stale | Verdict::Failed { .. } => {
            finished.state.and_then(|state| state.to_switch_off(now.utc)).or_else(|| {
                let pauses = is_last && options.on_exhausted == OnExhausted::Pause;
                pauses.then_some(DisabledReason::Exhausted)
            })
        }
    };
    let reason = reason.filter(|_| lanes.switch_off(send));
    let next = lanes.next(now.monotonic);
    let calls = lanes.calls();
    drop(lanes);

    driver.answer(calls);
    let status = last.sent.result.as_ref().ok().map(|answer| answer.status);
    let error = error_of(&last.sent.result);
    if is_unsent {
        // No attempt, so the next one has its number.
        tries.pop();
    }
    let attempts = tries.last().map_or(send.job.attempts, |tried| tried.number);
    let is_first_try_success = attempts == 1 && outcome == Outcome::Delivered;
    let count = tries.len();
    let log = if is_first_try_success {
        Vec::new()
    } else {
        let is_charged = |index| index + 1 == count && !send.is_probe && !is_unsent;
        let tries = tries.into_iter().enumerate();
        tries.map(|(index, tried)| tried.log(send, is_charged(index))).collect()
    };
    let settlement = Settlement {
        lane: send.lane,
        seq: send.job.seq,
        outcome,
        attempts,
        charged,
        at: now.utc,
        status,
        error,
        log,
    };
    let told = LastAttempt { number: attempts, status, error };
    let mut told_of = Vec::new();
    if finished.tells_of_exhaustion {
        told_of.push(notices::exhausted(driver, send, told));
    }
    if let Some(reason) = reason {
        told_of.push(notices::disabled(driver, send, told, (reason, finished.state, now.utc)));
    }
    let request = SettleRequest {
        worker: send.worker,
        settlement,
        hold: send.job.hold,
        lane_state: finished.state,
        switch_off: reason.map(|reason| SwitchOff { lane: send.lane, reason }),
        notices: told_of,
        is_urgent: options.order == SendOrder::Strict,
    };
    driver.inbox.settle(request, now.monotonic);
    next
}

/// What becomes of the delivery.
fn outcome(
    driver: &Driver,
    send: &Sending,
    verdict: Verdict,
    charged: u32,
    now: Timestamp,
) -> Outcome {
    match verdict {
        Verdict::Accepted => Outcome::Delivered,
        Verdict::Unsent => Outcome::RetryAt(now + UNSENT_DELAY),
        // The lane waits for the next probe; the delivery itself is ready for it.
        Verdict::Stale | Verdict::Failed { .. } if send.is_probe => Outcome::RetryAt(now),
        // Its subscription is switched off with this; it is held, and sent again on resume.
        Verdict::Gone => Outcome::RetryAt(now),
        Verdict::Stale | Verdict::Failed { .. } => {
            match send.target.retry.after_failure(charged, now, driver.draw()) {
                AfterFailure::RetryAt(at) => Outcome::RetryAt(at),
                AfterFailure::Exhausted => Outcome::Exhausted,
            }
        }
    }
}

impl Tried {
    fn log(self, send: &Sending, charged: bool) -> Attempt {
        let error = error_of(&self.sent.result);
        let (status, detail) = match self.sent.result {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.excerpt).into_owned();
                let detail = (!text.is_empty()).then(|| send.target.subscription.mask(text));
                (Some(answer.status), detail)
            }
            Err(failure) => (None, Some(failure.detail)),
        };
        Attempt {
            number: self.number,
            started_at: self.started_at,
            status,
            error,
            detail,
            probe: send.is_probe,
            charged,
            timings: self.sent.timings,
        }
    }
}

fn error_of(result: &Result<Answer, Failure>) -> Option<AttemptError> {
    match result {
        Ok(answer) if (200..300).contains(&answer.status) => None,
        Ok(_) => Some(AttemptError::Status),
        Err(failure) => Some(failure.error),
    }
}

/// The one log line of an attempt.
fn report(send: &Sending, last: &Tried, verdict: Verdict) {
    let subscription = &send.target.subscription;
    let delivery = DeliveryId::new(send.job.event.id, send.job.seq, send.lane);
    let status = last.sent.result.as_ref().ok().map(|answer| answer.status);
    let error = error_of(&last.sent.result).map(AttemptError::as_str);
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                %delivery,
                subscription = %subscription.id,
                organization = %subscription.organization,
                event = %send.job.event.id,
                event_type = %send.job.event.event_type,
                attempt = last.number,
                probe = send.is_probe,
                status,
                error,
                total = ?last.sent.timings.total,
                $message
            )
        };
    }
    match verdict {
        Verdict::Accepted => line!(debug, "delivered"),
        // One for each lane every few seconds; that there is trouble is told for all of them.
        Verdict::Unsent => line!(debug, "could not be sent"),
        Verdict::Gone | Verdict::Stale | Verdict::Failed { .. } => line!(warn, "attempt failed"),
    }
}

/// After our own side could not send, a lane waits so long.
const UNSENT_DELAY: Duration = Duration::from_secs(5);
