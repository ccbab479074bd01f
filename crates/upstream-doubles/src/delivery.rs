//! The client that sends deliveries to receivers: plain HTTP, loopback only, no redirects, 5 s for all of it.
//!
//! It is small on purpose: a general client would follow redirects, use proxies and resolve names.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::http::header::HOST;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use url::{Host, Url};

/// Longest time from connecting to the end of the answer.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    /// Where it was sent.
    pub url: String,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Why there is no status.
    pub error: Option<String>,
    /// From start to end.
    pub millis: u64,
}

impl Delivered {
    /// Whether the receiver answered 2xx.
    pub fn accepted(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// Names that lead to a loopback address, for deliveries only. A mapped `https` URL is sent as plain HTTP.
pub type HostMap = BTreeMap<String, SocketAddr>;

/// Sends deliveries.
#[derive(Debug, Clone, Default)]
pub(crate) struct Courier {
    hosts: HostMap,
}

impl Courier {
    /// Entries that lead elsewhere than to loopback are dropped.
    pub(crate) fn new(hosts: HostMap) -> Self {
        let hosts = hosts
            .into_iter()
            .filter(|(_, address)| address.ip().is_loopback())
            .collect();
        Self { hosts }
    }

    /// POSTs `body` to `url`.
    pub(crate) async fn post(&self, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Delivered {
        let start = Instant::now();
        let sent = tokio::time::timeout(DELIVERY_TIMEOUT, self.try_post(url, headers, body)).await;
        let outcome =
            sent.unwrap_or_else(|_| Err(format!("no answer within {} s", DELIVERY_TIMEOUT.as_secs())));
        Delivered {
            url: url.to_owned(),
            status: outcome.as_ref().ok().copied(),
            error: outcome.err(),
            millis: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn try_post(&self, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Result<u16, String> {
        let url = Url::parse(url).map_err(|error| format!("unusable URL: {error}"))?;
        let address = self.address(&url)?;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let authority = url.authority().rsplit('@').next().unwrap_or_default().to_owned();
        let mut request = Request::post(target).header(HOST, authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Body::from(body))
            .map_err(|error| format!("unusable request: {error}"))?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        // Ends with the sender, so also when the timeout drops this future.
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(text)?;
            let status = answer.status().as_u16();
            drain(answer.into_body()).await;
            Ok(status)
        };
        tokio::select! {
            biased;
            answer = exchange => answer,
            Err(error) = connection => Err(text(error)),
        }
    }

    fn address(&self, url: &Url) -> Result<SocketAddr, String> {
        if let Some(address) = url.host_str().and_then(|host| self.hosts.get(host)) {
            return Ok(*address);
        }
        if url.scheme() != "http" {
            return Err(format!("scheme {} is not delivered to", url.scheme()));
        }
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain("localhost")) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => return Err("only loopback addresses are delivered to".to_owned()),
        };
        if !ip.is_loopback() {
            return Err("only loopback addresses are delivered to".to_owned());
        }
        Ok(SocketAddr::new(ip, url.port().unwrap_or(80)))
    }
}

fn text(error: hyper::Error) -> String {
    format!("connection failed: {error}")
}

/// Reads on so that the receiver is not cut off, up to a limit.
async fn drain(mut body: hyper::body::Incoming) {
    let mut left = MAX_ANSWER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let size = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(size) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_ever_connected_to() {
        let mapped = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        let elsewhere: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let courier = Courier::new(HostMap::from([
            ("hooks.example.test".to_owned(), mapped),
            ("bad.example.test".to_owned(), elsewhere),
        ]));
        let address = |url: &str| courier.address(&Url::parse(url).unwrap());
        assert_eq!(
            address("http://127.0.0.1:81/x"),
            Ok("127.0.0.1:81".parse().unwrap())
        );
        assert_eq!(address("http://[::1]/x"), Ok("[::1]:80".parse().unwrap()));
        assert_eq!(
            address("http://localhost:5/x"),
            Ok("127.0.0.1:5".parse().unwrap())
        );
        assert_eq!(address("https://hooks.example.test/x"), Ok(mapped));
        for url in [
            "https://127.0.0.1/",
            "http://10.0.0.1/",
            "http://169.254.169.254/",
            "http://[::ffff:127.0.0.1]/",
            "http://bad.example.test/",
            "http://example.test/",
        ] {
            assert!(address(url).is_err(), "{url}");
        }
    }
}
