//! Whose create it is when its answer comes: this pass's, or that of another replica, which held this one for dead and
//! took its mark over. The object decides, by its version; what nobody records in the end is told and never removed.

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::events::EventType};

use super::{
    act::Pass,
    publish::{Journal, PublishError, event},
    reconcile::PassError,
};
use crate::{
    api::Webhook,
    domain::{
        recorded::{Mark, Origin, Recorded},
        remote::{Remote, RemoteId},
    },
};

/// Pause before the second try, twice that before the third, and so on: whoever keeps changing the object is not raced.
const RETRY: Duration = Duration::from_millis(150);

impl Pass {
    /// Stores the new id. It has to succeed, or the registration would have to be found again: a few tries at once,
    /// each on the newest version of the object, as long as the mark is still this create's.
    pub(super) async fn record_created(
        &mut self,
        remote: &Remote,
        replaces: Option<RemoteId>,
    ) -> Result<(), PassError> {
        let mark = self.recorded.mark.clone();
        let journal = Journal::Recorded {
            id: remote.id.clone(),
            origin: Origin::Created,
            retire: replaces,
            made_of: mark.as_ref().and_then(|mark| mark.made_of.clone()),
        };
        for attempt in 1..=5_u32 {
            match self.journal(journal.clone()).await {
                Ok(()) => return Ok(()),
                Err(PublishError::Gone) => {
                    self.tell_unrecorded(Some(&remote.id), None).await;
                    return Err(PublishError::Gone.into());
                }
                Err(PublishError::Conflict) => {
                    if let Some(newest) = self.overtaken(mark.as_ref()).await? {
                        self.tell_unrecorded(Some(&remote.id), newest.as_deref()).await;
                        return Err(PublishError::Conflict.into());
                    }
                }
                Err(PublishError::Kube(error)) => {
                    tracing::warn!(name = self.webhook.name_any(), %error, attempt, "the new id could not be stored; trying again");
                }
            }
            tokio::time::sleep(RETRY * attempt).await;
        }
        Err(PublishError::Conflict.into())
    }

    /// After a create without an answer: goes on only if its mark still stands; else tells.
    pub(super) async fn still_marked(&mut self) -> Result<(), PassError> {
        let mark = self.recorded.mark.clone();
        match self.overtaken(mark.as_ref()).await? {
            None => Ok(()),
            Some(newest) => {
                self.tell_unrecorded(None, newest.as_deref()).await;
                Err(PublishError::Conflict.into())
            }
        }
    }

    /// Looks whether somebody else has taken this create over, as another replica does with the mark of one that it
    /// holds for dead: then the object as it is now, `None` in it if that is gone. Otherwise the pass goes on with the
    /// newest version.
    async fn overtaken(&mut self, mark: Option<&Mark>) -> Result<Option<Option<Arc<Webhook>>>, PassError> {
        let newest = match self.read_afresh().await {
            Ok(newest) => newest,
            Err(PassError::Kube(kube::Error::Api(status))) if status.code == 404 => return Ok(Some(None)),
            Err(error) => return Err(error),
        };
        if newest.uid() != self.webhook.uid() {
            return Ok(Some(None));
        }
        if Recorded::read(&newest, &self.ctx.key).mark.as_ref() != mark {
            return Ok(Some(Some(newest)));
        }
        self.webhook = newest;
        Ok(None)
    }

    /// Tells of a create of this pass (its id, if the upstream has said one) that nothing records any more. It is not
    /// removed: whoever has taken over may just have found and recorded it.
    async fn tell_unrecorded(&self, made: Option<&RemoteId>, newest: Option<&Webhook>) {
        let recorded = newest.map(|newest| Recorded::read(newest, &self.ctx.key));
        let held = recorded.as_ref().and_then(|recorded| recorded.id.as_ref());
        let held = held.map(|(id, _)| id);
        if made.is_some() && made == held {
            return;
        }
        let made = made.map_or_else(
            || format!("a registration for {}, without an answer,", self.webhook.spec.url),
            |id| format!("registration {id} for {}", self.webhook.spec.url),
        );
        let by = "somebody else, such as another replica,";
        let (reason, rest) = match (newest, held) {
            (None, _) => (
                "LeftInPlace",
                "and the object went meanwhile; if it is at the upstream, remove it there by hand".to_owned(),
            ),
            (Some(_), Some(held)) => (
                "Duplicates",
                format!(
                    "and meanwhile {by} recorded {held}; if both are at the upstream, everything is delivered twice: remove the one that is not recorded"
                ),
            ),
            (Some(_), None) => (
                "Duplicates",
                format!(
                    "and meanwhile {by} took its mark; if there are two in the end, everything is delivered twice: remove the one that is not recorded"
                ),
            ),
        };
        let note = format!("this replica asked for {made} {rest}");
        tracing::warn!(
            namespace = self.namespace(),
            name = self.webhook.name_any(),
            note,
            "an unrecorded create"
        );
        event(
            &self.ctx,
            &self.webhook,
            EventType::Warning,
            reason,
            &note,
            "Create",
        )
        .await;
    }

    async fn read_afresh(&self) -> Result<Arc<Webhook>, PassError> {
        let api: kube::Api<Webhook> = kube::Api::namespaced(self.ctx.client.clone(), &self.namespace());
        let mut webhook = api.get(&self.webhook.name_any()).await?;
        webhook.metadata.managed_fields = None;
        Ok(Arc::new(webhook))
    }
}
