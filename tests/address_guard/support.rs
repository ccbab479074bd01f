//! Listeners, scripted servers and a scripted resolver. All on loopback; all end with the test's runtime.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use webhook_operator::net::{
    AddressPolicy, CheckedUrl, HttpClient, HttpError, Limit, Method, PlainHttp, Request, Resolve, Response,
};

pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Counts the connections made to it.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Serves each connection with `handler`; counts them.
pub(crate) fn serve<H, F>(listener: TcpListener, counter: Counter, handler: H)
where
    H: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.add();
            tokio::spawn(handler(stream));
        }
    });
}

/// Listens on 127.0.0.1 and serves each connection with `handler`.
pub(crate) async fn server<H, F>(handler: H) -> (SocketAddr, Counter)
where
    H: Fn(TcpStream) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let counter = Counter::default();
    serve(listener, counter.clone(), handler);
    (addr, counter)
}

/// A server that reads one request and writes these bytes, then closes.
pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> (SocketAddr, Counter) {
    let answer = Arc::new(answer.into());
    server(move |mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            read_request(&mut stream).await;
            // The client may hang up in the middle of a body that is too large.
            let _ = stream.write_all(&answer).await;
        }
    })
    .await
}

/// Reads up to the end of a request's head, and its body as far as `Content-Length` says; gives it as text.
pub(crate) async fn read_request<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")
                        .map(str::to_owned)
                })
                .map_or(0, |value| value.trim().parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(n) => seen.extend_from_slice(&buffer[..n]),
        }
    }
}

/// A small good answer that closes the connection.
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// A listener that must not be reached: the same port on 127.0.0.1 and, where the machine has it, ::1.
pub(crate) struct Trap {
    pub(crate) port: u16,
    pub(crate) has_ipv6: bool,
    accepted: Counter,
}

impl Trap {
    pub(crate) async fn set() -> Self {
        let accepted = Counter::default();
        let answer = |mut stream: TcpStream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(OK.as_bytes()).await;
        };
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        serve(listener, accepted.clone(), answer);
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await;
        let has_ipv6 = v6.is_ok();
        if let Ok(listener) = v6 {
            serve(listener, accepted.clone(), answer);
        }
        Self {
            port,
            has_ipv6,
            accepted,
        }
    }

    /// Asserts that nothing but the `control` calls, made last, has connected. A listener accepts in the order of
    /// connections, so whatever came before an answered control call has been counted: no waiting is needed.
    pub(crate) fn assert_only(&self, control: usize) {
        assert_eq!(self.accepted.get(), control, "connections to the trap");
    }
}

/// What the scripted resolver says about a name.
#[derive(Clone)]
pub(crate) enum Answer {
    Addrs(Vec<IpAddr>),
    Fail(&'static str),
    Never,
}

/// A resolver that answers from a script: each name has a list of answers, of which the last one stays.
#[derive(Default)]
pub(crate) struct Names {
    script: Mutex<HashMap<String, Vec<Answer>>>,
    pub(crate) lookups: Counter,
}

impl Names {
    pub(crate) fn with(self, name: &str, answers: Vec<Answer>) -> Self {
        self.script.lock().unwrap().insert(name.to_owned(), answers);
        self
    }

    pub(crate) fn at(self, name: &str, addrs: &[&str]) -> Self {
        let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        self.with(name, vec![Answer::Addrs(addrs)])
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.lookups.add();
        let answer = {
            let mut script = self.script.lock().unwrap();
            let answers = script
                .get_mut(name)
                .unwrap_or_else(|| panic!("unexpected lookup of {name}"));
            if answers.len() > 1 {
                answers.remove(0)
            } else {
                answers[0].clone()
            }
        };
        Box::pin(async move {
            match answer {
                Answer::Addrs(addrs) => Ok(addrs),
                Answer::Fail(text) => Err(io::Error::other(text)),
                Answer::Never => std::future::pending().await,
            }
        })
    }
}

pub(crate) fn policy(networks: &[&str]) -> AddressPolicy {
    AddressPolicy::parse(networks).unwrap()
}

/// A client that may reach these networks on top of what is public.
pub(crate) fn client(networks: &[&str]) -> HttpClient {
    HttpClient::builder(policy(networks)).build().unwrap()
}

/// The same, resolving by script.
pub(crate) fn client_with(networks: &[&str], names: &Arc<Names>) -> HttpClient {
    let names: Arc<Names> = Arc::clone(names);
    HttpClient::builder(policy(networks))
        .resolver(names)
        .build()
        .unwrap()
}

pub(crate) fn url(text: &str) -> CheckedUrl {
    CheckedUrl::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

/// A request of a few seconds at most, to whatever address the guard allows. It has a body, as a POST that was
/// sent by mistake is the case that matters.
pub(crate) fn post(text: &str) -> Request {
    Request::new(Method::Post, url(text))
        .json("{}")
        .timeout(Duration::from_secs(5))
        .limit(Limit::Object)
        .plain_http(PlainHttp::AnyPublic)
}

/// Sends a POST and expects it to fail.
pub(crate) async fn failure(client: &HttpClient, text: &str) -> HttpError {
    match client.send(post(text)).await {
        Ok(response) => panic!("{text}: answered {response:?}"),
        Err(error) => error,
    }
}

/// Sends a POST and expects an answer.
pub(crate) async fn success(client: &HttpClient, text: &str) -> Response {
    client
        .send(post(text))
        .await
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
}
