//! Everything that leaves the operator towards an address that a user can name: the address guard, name
//! resolution, and the HTTP transport.
//!
//! Knows nothing of Kubernetes and nothing of any upstream's dialect; those stand on top of it. The order to read
//! it in: [`guard`] (which addresses are refused), [`url`] (what a URL may look like), [`resolve`] (names to
//! checked addresses), [`message`] (requests and answers), [`error`] (what went wrong, and whether the request
//! may have arrived), [`http`] (the transport itself).

pub mod error;
pub mod guard;
pub mod http;
pub mod message;
pub mod resolve;
pub mod secret;
pub mod url;

pub use self::{
    error::{ConnectProblem, HttpError, HttpErrorKind, Phase, SetupError, TlsProblem},
    guard::{AddressPolicy, AllowListError, Refused},
    http::{HttpClient, HttpClientBuilder, is_transport_header},
    message::{Limit, Method, PlainHttp, Request, Response, retry_after},
    resolve::{Resolve, ResolveError, SharedLookups, SystemResolver},
    secret::SecretText,
    url::{CheckedUrl, UrlProblem},
};
