//! The seam between a dialect and the wire: the operator sends through [`HttpClient`], a test through a model of
//! the upstream.

use futures::future::BoxFuture;

use crate::net::{HttpClient, HttpError, Request, Response};

/// Sends one request, once.
pub trait Transport: Send + Sync {
    /// The whole answer, whatever its status.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>>;
}

impl Transport for HttpClient {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        Box::pin(self.send(request))
    }
}
