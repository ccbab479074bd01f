//! What a change at the upstream meant: whose switch it was, what it put right, and what is told about it.

use std::sync::Arc;

use kube::runtime::events::EventType;

use super::{
    act::Pass,
    conclude::Finding,
    publish::{event, write_status},
    reconcile::PassError,
};
use crate::{
    api::{conditions::SyncedReason, webhook_status::DeactivatedBy},
    domain::{desired::Desired, gaps::Cause, plan::Why, remote::Remote, status::Assessment},
};

impl Pass {
    /// What is to be reached now: what is wanted, switched off as long as its tests keep failing.
    pub(super) fn goal(&self, want: Arc<Desired>) -> Arc<Desired> {
        if self.with_tally(|tally| tally.is_tripped()) {
            Arc::new(Desired {
                active: false,
                ..(*want).clone()
            })
        } else {
            want
        }
    }

    /// Whose switch it is that a goal is off.
    pub(super) fn off(&self, goal: &Desired) -> Option<DeactivatedBy> {
        let by = if self.with_tally(|tally| tally.is_tripped()) {
            DeactivatedBy::TestFailure
        } else {
            DeactivatedBy::Spec
        };
        (!goal.active).then_some(by)
    }

    /// Records that the operator switches it off, so that the switch is not taken for somebody else's if the record of
    /// its end is never written.
    pub(super) async fn begin_switch_off(&mut self) -> Result<(), PassError> {
        let assessment = Assessment::failed_too_often();
        self.webhook = write_status(&self.ctx, &self.memory, &self.webhook, assessment, |status| {
            status.deactivated_by = Some(DeactivatedBy::TestFailure);
        })
        .await?;
        Ok(())
    }

    /// A registration that is made now was there before and nobody here took it away.
    pub(super) fn was_lost(&self, replaced: bool) -> Option<Cause> {
        let status = self.webhook.status.as_ref();
        let recorded = status.is_some_and(|status| status.id.is_some());
        (recorded && !replaced).then_some(Cause::NotRegistered)
    }

    /// After an update: what it put right, with the Event.
    pub(super) async fn written(
        &self,
        remote: Remote,
        goal: &Desired,
        fields: &[&'static str],
        why: Why,
    ) -> Finding {
        let how = match why {
            Why::Drift => SyncedReason::DriftCorrected,
            Why::Rewrite => SyncedReason::InSync,
            Why::Spec | Why::Reactivate | Why::TestFailure | Why::TryAgain => SyncedReason::Applied,
        };
        let mut found = Finding::written(remote, self.off(goal), how);
        if why == Why::Drift {
            found.corrected = fields.to_vec();
            self.ctx
                .metrics
                .drift_corrected(self.account.provider_type.as_str());
        }
        found.lapse = match why {
            Why::Drift if fields.contains(&"url") => Some(Cause::UrlChanged),
            Why::Reactivate => Some(Cause::DeactivatedUpstream),
            Why::Drift | Why::Rewrite | Why::Spec | Why::TestFailure | Why::TryAgain => None,
        };
        let (type_, reason, note, action) = match why {
            Why::Drift => (
                EventType::Warning,
                "DriftCorrected",
                format!("somebody changed the upstream; put right: {}", fields.join(", ")),
                "Correct",
            ),
            Why::Reactivate => (
                EventType::Normal,
                "Reactivated",
                "somebody had switched it off at the upstream; switched on again".to_owned(),
                "Reactivate",
            ),
            Why::TestFailure => (
                EventType::Warning,
                "DeactivatedByTests",
                self.why_tests_failed(),
                "Deactivate",
            ),
            Why::TryAgain => (
                EventType::Normal,
                "Reactivated",
                "it was switched off for its failed tests; switched on again, to be tested".to_owned(),
                "Reactivate",
            ),
            Why::Spec | Why::Rewrite => return found,
        };
        event(&self.ctx, &self.webhook, type_, reason, &note, action).await;
        found
    }

    fn why_tests_failed(&self) -> String {
        let test = self
            .webhook
            .status
            .as_ref()
            .and_then(|status| status.test.as_ref());
        let failures = test.map_or(0, |test| test.consecutive_failures);
        let message = test.and_then(|test| test.message.as_deref()).unwrap_or_default();
        format!(
            "switched off at the upstream after {failures} failed tests in a row; the last one: {message}"
        )
    }
}
