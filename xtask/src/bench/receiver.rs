//! A receiver of thousands of tests a minute, in this process: notes when each arrives, takes its time, and answers
//! 200. It is told which Webhook a delivery is for by the path.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::progress::Failure;

/// A delivery is a few hundred bytes; more than this is none.
const MAX_BYTES: usize = 64 << 10;

/// Longest wait for the whole of a delivery.
const READ_LIMIT: Duration = Duration::from_secs(20);

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// One delivery.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    /// The path without its first slash.
    pub(super) path: String,
    /// When its head was there.
    pub(super) at: Timestamp,
}

/// The receiver; it ends with this value.
pub(super) struct Receiver {
    url: String,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    listening: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Receiver {
    /// Listens on a free port of loopback, and waits `latency` before each answer.
    pub(super) async fn start(latency: Duration) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let arrivals = Arc::<Mutex<Vec<Arrival>>>::default();
        let listening = tokio::spawn(listen(listener, Arc::clone(&arrivals), latency));
        Ok(Self {
            url,
            arrivals,
            listening,
        })
    }

    /// Scheme, host and port.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Everything since the last call.
    pub(super) fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn listen(listener: TcpListener, arrivals: Arc<Mutex<Vec<Arrival>>>, latency: Duration) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&arrivals), latency));
                }
                // Out of file descriptors: some come back with the connections that end.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, arrivals: Arc<Mutex<Vec<Arrival>>>, latency: Duration) {
    let Ok(Some(path)) = timeout(READ_LIMIT, read(&mut stream)).await else {
        return;
    };
    let at = Timestamp::now();
    arrivals
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Arrival { path, at });
    sleep(latency).await;
    // A client that has gone has its own word for it.
    let _ = stream.write_all(ANSWER).await;
    let _ = stream.shutdown().await;
}

/// Reads one whole request; its path without the first slash.
async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::with_capacity(1024);
    while seen.len() < MAX_BYTES {
        if let Some(path) = whole(&seen) {
            return Some(path);
        }
        if stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
    None
}

/// The path of a request that is complete.
fn whole(seen: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(seen).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok()).flatten()
    });
    (body.len() >= length.unwrap_or_default()).then(|| path.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_with_the_last_byte_of_its_body() {
        let request = b"POST /orders-1 HTTP/1.1\r\nHost: h\r\ncontent-length: 2\r\n\r\n{}";
        for end in 0..request.len() {
            assert_eq!(whole(&request[..end]), None, "{end}");
        }
        assert_eq!(whole(request).as_deref(), Some("orders-1"));
    }
}
