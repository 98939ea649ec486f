//! Streams of events: from the scheduler into the ring, and from the ring to the clients.

use std::convert::Infallible;
use std::sync::{Arc, Weak};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;

use super::call::HttpCall;
use super::events::NumberedEvent;
use super::problem::HttpProblem;
use super::{ClientLimits, HttpParts, answer, is_over, views};
use crate::serve::handle::AgentEvent;

/// Events that wait for a slow client.
const WAITING: usize = 16;
/// What a stream says while nothing happens.
const COMMENT: &[u8] = b": still here\n\n";

/// Puts what happens into the ring, for as long as the service is there.
pub(super) async fn collect(http: Weak<HttpParts>, mut happened: broadcast::Receiver<AgentEvent>) {
    loop {
        let event = happened.recv().await;
        let Some(http) = http.upgrade() else { return };
        match event {
            Ok(AgentEvent::Verdict) => {
                let verdict = views::status::verdict(&http).await;
                let data = verdict.map_or_else(
                    |_| json!({}),
                    |verdict| json!({"state": verdict.state, "sentence": verdict.sentence}),
                );
                http.events.add("verdict", data.to_string());
            }
            Ok(AgentEvent::Run { id }) => http.events.add("run", json!({ "id": id }).to_string()),
            Ok(AgentEvent::Progress(run)) => {
                let view = json!(views::status::RunningView::of(&run));
                http.events.add("progress", view.to_string());
            }
            Err(RecvError::Lagged(_)) => http.events.add("resync", "{}".to_owned()),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Answers with the stream of events.
pub(super) fn stream(
    http: &Arc<HttpParts>,
    call: &HttpCall,
) -> Result<Response<Body>, HttpProblem> {
    call.query([])?;
    let place = Arc::clone(&http.places.streams).try_acquire_owned();
    let place = place.map_err(|_| HttpProblem::overloaded("too many streams are open", 10))?;
    // A text that is no number is of another program: the client reads the state again.
    let seen = call
        .header("last-event-id")
        .map(|text| text.parse().unwrap_or(0));
    let (missed, live) = http.events.follow(seen);
    let (sender, receiver) = mpsc::channel(WAITING);
    let feed = Feed {
        http: Arc::downgrade(http),
        sender,
        limits: http.limits,
        _place: place,
    };
    tokio::spawn(feed.run(missed, live, call.shutdown.clone()));
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(answer::with_type(StatusCode::OK, "text/event-stream", body))
}

/// Sends events to one client.
struct Feed {
    http: Weak<HttpParts>,
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
    limits: ClientLimits,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// Sends until the client is gone, the time is over or the agent ends.
    async fn run(
        self,
        missed: Vec<Arc<NumberedEvent>>,
        live: broadcast::Receiver<Arc<NumberedEvent>>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let sender = self.sender.clone();
        tokio::select! {
            () = self.send_all(missed, live) => {}
            () = sender.closed() => {}
            () = is_over(&mut shutdown) => {}
        }
    }

    async fn send_all(
        &self,
        missed: Vec<Arc<NumberedEvent>>,
        mut live: broadcast::Receiver<Arc<NumberedEvent>>,
    ) {
        let end = Instant::now() + self.limits.stream;
        // The first bytes, so that the client sees that it is connected.
        let mut is_open = self.send(Bytes::from_static(COMMENT)).await;
        for event in missed {
            is_open = is_open && self.send(event.text().into()).await;
        }
        while is_open {
            let next = timeout(self.limits.comment, live.recv());
            let Ok(next) = timeout_at(end, next).await else {
                return;
            };
            let text = match next {
                Ok(Ok(event)) => event.text().into(),
                Ok(Err(RecvError::Lagged(_))) => match self.http.upgrade() {
                    Some(http) => http.events.missed().text().into(),
                    None => return,
                },
                Ok(Err(RecvError::Closed)) => return,
                Err(_) => Bytes::from_static(COMMENT),
            };
            is_open = self.send(text).await;
        }
    }

    async fn send(&self, text: Bytes) -> bool {
        let sent = timeout(self.limits.write, self.sender.send(Ok(text)));
        matches!(sent.await, Ok(Ok(())))
    }
}
