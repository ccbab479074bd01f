//! Accepting connections, giving each request to a handler, and hanging up on request.
//!
//! hyper is used directly because axum's own server cannot close a connection without answering: a handler's
//! [`Reset`] ends the connection here, and the socket is closed with a TCP reset.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// A handler's wish to close the connection without a byte of an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection reset on purpose")]
pub struct Reset;

/// Ends every task started through it when its [`StopHandle`] goes.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<()>);

/// Owner's side of [`Stop`].
#[derive(Debug)]
pub(crate) struct StopHandle {
    _sender: watch::Sender<()>,
}

/// A pair of handle and signal.
pub(crate) fn stop_pair() -> (StopHandle, Stop) {
    let (sender, receiver) = watch::channel(());
    (StopHandle { _sender: sender }, Stop(receiver))
}

impl Stop {
    /// Returns when the owner has gone.
    pub(crate) async fn wait(&self) {
        let mut receiver = self.0.clone();
        while receiver.changed().await.is_ok() {}
    }

    /// Runs `task` until it is done or the owner goes; `None` in the latter case.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.wait() => None,
                output = task => Some(output),
            }
        })
    }
}

/// Binds a loopback address.
///
/// # Errors
/// Other addresses are refused: nothing here is made to be reached from elsewhere.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        let message = format!("{address} is not a loopback address, and only those are served");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    TcpListener::bind(address).await
}

/// Any free port of 127.0.0.1.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Serves connections until the owner of `stop` goes.
pub(crate) async fn serve<H, F>(listener: TcpListener, stop: Stop, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, Reset>> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stop.spawn(connection(stream, handler.clone()));
            }
            // Out of file handles, for example: give the others time to end.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Serves an axum router by the same loop.
pub(crate) async fn serve_router(listener: TcpListener, stop: Stop, router: Router) {
    serve(listener, stop, move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let answer: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
            answer.map_err(|never| match never {})
        }
    })
    .await;
}

async fn connection<H, F>(stream: TcpStream, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Send + Sync,
    F: Future<Output = Result<Response<Body>, Reset>> + Send + 'static,
{
    // Answers are small; waiting to fill a packet would only add latency.
    let _ = stream.set_nodelay(true);
    let abort = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Wire {
        stream,
        abort: Arc::clone(&abort),
    });
    let service = service_fn(move |request| {
        let answer = handler(request);
        let abort = Arc::clone(&abort);
        async move {
            let answer = answer.await;
            abort.store(answer.is_err(), Ordering::Relaxed);
            answer
        }
    });
    // An error here is a peer that left or a reset that was asked for.
    let _ = http1::Builder::new().serve_connection(io, service).await;
}

/// A connection that can be told to end by a TCP reset instead of an orderly close.
struct Wire {
    stream: TcpStream,
    abort: Arc<AtomicBool>,
}

impl Wire {
    fn aborted(&self) -> bool {
        self.abort.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.aborted() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.aborted() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
