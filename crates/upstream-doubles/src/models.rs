//! The four upstreams without sockets, for simulations: the same doubles, called instead of connected to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Response};

use crate::delivery::Courier;
use crate::double::{Double, Setting};
use crate::server::{self, Reset, StopHandle};
use crate::{Autocosmos, Conpeek, Options, Ricloud, Source, Thulium};

const CONPEEK: &str = "conpeek.example";
const THULIUM: &str = "thulium.example";
const RICLOUD: &str = "ricloud.example";
const AUTOCOSMOS: &str = "autocosmos.example";

/// The four upstreams in this process. Each has a base URL with a name of its own, which leads nowhere: requests
/// are handed to [`Models::exchange`]. Deliveries go nowhere either, so ricloud's tests need a verdict that asks no
/// receiver. Dropping it ends what runs in the background.
pub struct Models {
    conpeek: Arc<Double<Conpeek>>,
    thulium: Arc<Double<Thulium>>,
    ricloud: Arc<Double<Ricloud>>,
    autocosmos: Arc<Double<Autocosmos>>,
    _stop: StopHandle,
}

impl Models {
    /// Accounts, switches, latency and journals as in `options`; addresses and hosts are not used.
    pub fn new(options: Options, source: &Source) -> Self {
        let (handle, stop) = server::stop_pair();
        let courier = Courier::default();
        let setting = Setting {
            journal_limit: options.journal_limit,
            latency: Duration::from_millis(options.latency_millis),
            stop: stop.clone(),
            source: source.clone(),
        };
        let conpeek = Conpeek::new(
            options.conpeek.behaviour,
            options.conpeek.accounts,
            courier.clone(),
        );
        let thulium = Thulium::new(
            options.thulium.behaviour,
            options.thulium.accounts,
            courier.clone(),
        );
        let ricloud = Ricloud::new(
            options.ricloud.behaviour,
            options.ricloud.accounts,
            courier.clone(),
            stop,
            source.clone(),
        );
        let autocosmos = Autocosmos::new(
            options.autocosmos.behaviour,
            options.autocosmos.accounts,
            courier,
            source.clone(),
        );
        let base = |host: &str| format!("https://{host}");
        Self {
            conpeek: Double::new(Arc::new(conpeek), base(CONPEEK), setting.clone()),
            thulium: Double::new(Arc::new(thulium), base(THULIUM), setting.clone()),
            ricloud: Double::new(Arc::new(ricloud), base(RICLOUD), setting.clone()),
            autocosmos: Double::new(Arc::new(autocosmos), base(AUTOCOSMOS), setting),
            _stop: handle,
        }
    }

    /// Conpeek.
    pub fn conpeek(&self) -> &Arc<Double<Conpeek>> {
        &self.conpeek
    }

    /// Thulium.
    pub fn thulium(&self) -> &Arc<Double<Thulium>> {
        &self.thulium
    }

    /// ricloud.
    pub fn ricloud(&self) -> &Arc<Double<Ricloud>> {
        &self.ricloud
    }

    /// Autocosmos.
    pub fn autocosmos(&self) -> &Arc<Double<Autocosmos>> {
        &self.autocosmos
    }

    /// Hands a request to the upstream whose base URL has the host of the request's URI, through faults and journal
    /// as if it had come over a connection. The upstream goes on with it if the caller gives up.
    ///
    /// # Errors
    /// The connection would have been reset: by a fault, or because the host is none of the four. Whether the
    /// request had its effect is for the fault to say.
    pub async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Reset> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        match host.as_str() {
            CONPEEK => Arc::clone(&self.conpeek).exchange(request).await,
            THULIUM => Arc::clone(&self.thulium).exchange(request).await,
            RICLOUD => Arc::clone(&self.ricloud).exchange(request).await,
            AUTOCOSMOS => Arc::clone(&self.autocosmos).exchange(request).await,
            _ => Err(Reset),
        }
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConpeekAccount, Fault, faults::Effect};

    fn put(body: &'static str) -> Request<Bytes> {
        Request::put("https://conpeek.example/api/v1/applications/7/webhook")
            .header("Authorization", "key")
            .header("Content-Type", "application/json")
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap()
    }

    #[tokio::test]
    async fn requests_meet_faults_and_journal_without_a_socket() {
        let mut options = Options::default();
        options.conpeek.accounts.push(ConpeekAccount::new("demo", "key"));
        let models = Models::new(options, &Source::real());
        assert_eq!(models.conpeek().url(), "https://conpeek.example");
        models
            .conpeek()
            .set_fault(Fault::new(Effect::ResetAfter).times(1));
        assert!(models.exchange(put("{}")).await.is_err());
        let answer = models.exchange(put("{}")).await.unwrap();
        let seen = models.conpeek().requests();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen.first().unwrap().status, None);
        assert_eq!(seen.last().unwrap().status, Some(answer.status().as_u16()));
        let elsewhere = Request::get("https://elsewhere.example/")
            .body(Bytes::new())
            .unwrap();
        assert!(models.exchange(elsewhere).await.is_err());
    }
}
