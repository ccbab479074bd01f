//! The other run: what the operator wrote down is taken away, and must not matter.
//!
//! Backups drop `status`, people edit annotations, a cluster is made anew from Git. Whatever is lost, the operator has
//! to find its registrations again at the upstream: no create, no removal, the same ids, everything Ready again.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;
use upstream_doubles::Doubles;

use crate::{
    Error, Stage,
    calls::AllCalls,
    fleet::{API_VERSION, Fleet},
    judge::{Finding, Registered, Wrong},
    storm::until_well,
    user::{User, persist},
};

/// How many objects lose their memory at the same time.
const AT_ONCE: usize = 8;

/// Prefix of the operator's annotations.
const PREFIX: &str = "webhook-operator.dev/";

/// Annotation with the id.
const ID: &str = "webhook-operator.dev/id";

/// Annotation with the proof that the object recorded the id.
const CLAIM: &str = "webhook-operator.dev/claim";

/// Secret with the key of the operator's hashes and proofs.
const HASH_KEY: &str = "webhook-operator-hash-key";

/// When all is well again, what is still on its way has this long to arrive.
const SETTLE: Duration = Duration::from_secs(2);

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Loss {
    /// `status`.
    Status,
    /// The annotation with the id.
    Id,
    /// Both.
    StatusAndId,
    /// `status` and every annotation of the operator.
    StatusAndAnnotations,
    /// `status`, and the annotations were exchanged between two Webhooks.
    Exchanged,
    /// The key of the operator's hashes, so that no proof counts any more.
    HashKey,
    /// The objects themselves, and they are restored from a backup: new uids, annotations as they were, no status.
    Restored,
    /// The objects themselves, and they are applied again from Git: new uids, nothing else.
    Reapplied,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Status,
        Self::Id,
        Self::StatusAndId,
        Self::StatusAndAnnotations,
        Self::Exchanged,
        Self::HashKey,
        Self::Restored,
        Self::Reapplied,
    ];

    /// Whether it can also happen while the operator works.
    const fn may_be_seen(self) -> bool {
        matches!(
            self,
            Self::Status | Self::Id | Self::StatusAndId | Self::StatusAndAnnotations
        )
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status => "status wiped",
            Self::Id => "id annotation wiped",
            Self::StatusAndId => "status and id annotation wiped",
            Self::StatusAndAnnotations => "status and all annotations wiped",
            Self::Exchanged => "status wiped, annotations exchanged",
            Self::HashKey => "hash key deleted",
            Self::Restored => "objects restored from a backup",
            Self::Reapplied => "objects applied again from Git",
        })
    }
}

/// How a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of what the Webhooks are like.
    pub seed: u64,
    /// How many.
    pub webhooks: usize,
    /// Namespace of everything.
    pub namespace: String,
    /// Namespace of the operator's own objects.
    pub operator_namespace: String,
    /// `spec.timeout` of the providers.
    pub timeout: Duration,
    /// Longest wait for all to be well again.
    pub limit: Duration,
}

/// What became of one loss.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// What was lost.
    pub loss: Loss,
    /// Whether the operator worked meanwhile, or was started after it.
    pub seen: bool,
    /// From the loss, or the start after it, until all was well again.
    pub seconds: f64,
    /// Creates that arrived.
    pub creates: usize,
    /// Removals that were done.
    pub removed: usize,
    /// Changes that were done: what no upstream shows (passwords, secrets) is written once more.
    pub changed: BTreeMap<&'static str, usize>,
}

/// What a run has shown. A good one has no findings.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Seed of the run.
    pub seed: u64,
    /// How many Webhooks.
    pub webhooks: usize,
    /// From the first apply until all were Ready.
    pub seconds_to_ready: f64,
    /// Of each loss.
    pub outcomes: Vec<Outcome>,
    /// How many things were wrong; 0 is the only good figure.
    pub wrong: usize,
    /// Everything that was wrong.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Runs it: every loss after the other, each from where all is well. The operator runs before and after.
///
/// # Errors
/// A process of the stage fails, or the apiserver refuses or stays away. What is wrong with the operator is in the
/// report.
pub async fn run<S: Stage>(
    stage: &S,
    client: Client,
    doubles: &Doubles,
    plan: &Plan,
    losses: &[Loss],
) -> Result<Report, Error> {
    let fleet = Fleet::new(plan.seed, plan.webhooks);
    let patient = Patient {
        stage,
        doubles,
        plan,
        user: User::new(client, &plan.namespace),
        fleet,
    };
    let mut report = Report {
        seed: plan.seed,
        webhooks: plan.webhooks,
        ..Report::default()
    };
    stage.tell(&format!(
        "applying {} Webhooks; seed {}",
        plan.webhooks, plan.seed
    ));
    let began = Instant::now();
    let (user, fleet) = (&patient.user, &patient.fleet);
    user.settle_in(doubles, fleet, plan.timeout).await?;
    user.fill(fleet).await?;
    let (_, findings) = until_well(stage, user, doubles, fleet, plan.limit).await?;
    report.seconds_to_ready = began.elapsed().as_secs_f64().round();
    report.findings = findings;
    for loss in losses {
        for seen in [false, true] {
            if (seen && !loss.may_be_seen()) || !report.findings.is_empty() {
                continue;
            }
            let (outcome, findings) = patient.lose(*loss, seen).await?;
            report.outcomes.push(outcome);
            report.findings.extend(findings);
        }
    }
    report.wrong = report.findings.len();
    Ok(report)
}

struct Patient<'a, S> {
    stage: &'a S,
    doubles: &'a Doubles,
    plan: &'a Plan,
    user: User,
    fleet: Fleet,
}

impl<S: Stage> Patient<'_, S> {
    async fn lose(&self, loss: Loss, seen: bool) -> Result<(Outcome, Vec<Finding>), Error> {
        let when = if seen {
            "while the operator works"
        } else {
            "before a start"
        };
        self.stage.tell(&format!("{loss}, {when}"));
        let before = Registered::read(self.doubles).ids();
        AllCalls::forget(self.doubles);
        if !seen {
            self.stage.kill().await?;
        }
        self.take_away(loss).await?;
        if !seen {
            self.stage.start().await?;
            self.stage.working().await?;
        }
        let limit = self.plan.limit;
        let (seconds, mut findings) =
            until_well(self.stage, &self.user, self.doubles, &self.fleet, limit).await?;
        sleep(SETTLE).await;
        let calls = AllCalls::read(self.doubles);
        let after = Registered::read(self.doubles).ids();
        let sum = |of: fn(&crate::calls::Calls) -> usize| calls.each().into_iter().map(of).sum::<usize>();
        let outcome = Outcome {
            loss,
            seen,
            seconds,
            creates: sum(|calls| calls.creates),
            removed: sum(|calls| calls.removed),
            changed: BTreeMap::from([
                ("conpeek", calls.conpeek.changed),
                ("thulium", calls.thulium.changed),
                ("ricloud", calls.ricloud.changed),
                ("autocosmos", calls.autocosmos.changed),
            ]),
        };
        let gone: Vec<String> = before
            .difference(&after)
            .map(|(at, id)| format!("{at} {id}"))
            .collect();
        let new: Vec<String> = after
            .difference(&before)
            .map(|(at, id)| format!("{at} {id}"))
            .collect();
        if outcome.creates + outcome.removed + gone.len() + new.len() > 0 {
            findings.push(Finding {
                wrong: Wrong::Forgot,
                what: format!(
                    "{loss}, {when}: {} creates, {} removals; gone: {}; new: {}",
                    outcome.creates,
                    outcome.removed,
                    gone.join(", "),
                    new.join(", ")
                ),
            });
        }
        Ok((outcome, findings))
    }

    async fn take_away(&self, loss: Loss) -> Result<(), Error> {
        match loss {
            Loss::Status => self.each(|webhook| self.wipe(webhook, true, Vec::new())).await,
            Loss::Id => {
                self.each(|webhook| self.wipe(webhook, false, vec![ID.to_owned()]))
                    .await
            }
            Loss::StatusAndId => {
                self.each(|webhook| self.wipe(webhook, true, vec![ID.to_owned()]))
                    .await
            }
            Loss::StatusAndAnnotations => {
                self.each(|webhook| {
                    let ours = webhook
                        .annotations()
                        .keys()
                        .filter(|name| name.starts_with(PREFIX));
                    let ours = ours.cloned().collect();
                    self.wipe(webhook, true, ours)
                })
                .await
            }
            Loss::Exchanged => self.exchange().await,
            Loss::HashKey => self.delete_hash_key().await,
            Loss::Restored => self.each(|webhook| self.make_anew(webhook, true)).await,
            Loss::Reapplied => self.each(|webhook| self.make_anew(webhook, false)).await,
        }
    }

    /// Does something to all Webhooks.
    async fn each<F>(&self, each: impl Fn(DynamicObject) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let webhooks = self.user.webhooks().await?;
        stream::iter(webhooks)
            .map(each)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Annotations first: status would be written again if the operator saw it gone with the id still there.
    async fn wipe(
        &self,
        webhook: DynamicObject,
        status: bool,
        annotations: Vec<String>,
    ) -> Result<(), Error> {
        let name = webhook.name_any();
        if !annotations.is_empty() {
            let annotations: BTreeMap<String, Value> =
                annotations.into_iter().map(|name| (name, Value::Null)).collect();
            self.patch(&name, &json!({"metadata": {"annotations": annotations}}))
                .await?;
        }
        if status {
            self.wipe_status(&name).await?;
        }
        Ok(())
    }

    async fn patch(&self, name: &str, patch: &Value) -> Result<(), Error> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        persist(&format!("change {name}"), || {
            self.user.api().patch(name, &params, &patch)
        })
        .await?;
        Ok(())
    }

    async fn wipe_status(&self, name: &str) -> Result<(), Error> {
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"status": null}));
        let what = format!("wipe the status of {name}");
        persist(&what, || self.user.api().patch_status(name, &params, &patch)).await?;
        Ok(())
    }

    /// Gives each Webhook the id and proof of its neighbour at the same upstream.
    async fn exchange(&self) -> Result<(), Error> {
        let mut by_upstream: BTreeMap<String, Vec<DynamicObject>> = BTreeMap::new();
        for webhook in self.user.webhooks().await? {
            let provider = webhook
                .data
                .pointer("/spec/providerRef/name")
                .and_then(Value::as_str);
            by_upstream
                .entry(provider.unwrap_or_default().to_owned())
                .or_default()
                .push(webhook);
        }
        for webhooks in by_upstream.values() {
            let neighbours = webhooks.iter().cycle().skip(1);
            for (webhook, neighbour) in webhooks.iter().zip(neighbours) {
                let of = |name: &str| neighbour.annotations().get(name).cloned();
                let annotations = json!({ID: of(ID), CLAIM: of(CLAIM)});
                let name = webhook.name_any();
                self.patch(&name, &json!({"metadata": {"annotations": annotations}}))
                    .await?;
                self.wipe_status(&name).await?;
            }
        }
        Ok(())
    }

    async fn delete_hash_key(&self) -> Result<(), Error> {
        let client = self.user.client().clone();
        let secrets: Api<Secret> = Api::namespaced(client, &self.plan.operator_namespace);
        let params = DeleteParams::default();
        persist("delete the hash key", || secrets.delete(HASH_KEY, &params)).await?;
        Ok(())
    }

    /// Deletes an object without its finalizer having a say, and makes it again.
    async fn make_anew(&self, webhook: DynamicObject, with_annotations: bool) -> Result<(), Error> {
        let name = webhook.name_any();
        self.patch(&name, &json!({"metadata": {"finalizers": null}}))
            .await?;
        let (delete, create) = (DeleteParams::default(), PostParams::default());
        persist(&format!("delete {name}"), || {
            self.user.api().delete(&name, &delete)
        })
        .await?;
        let annotations = with_annotations.then(|| webhook.annotations().clone());
        let manifest = json!({
            "apiVersion": API_VERSION, "kind": "Webhook",
            "metadata": {"name": name, "namespace": self.plan.namespace, "annotations": annotations},
            "spec": webhook.data.get("spec"),
        });
        let manifest: DynamicObject = serde_json::from_value(manifest)?;
        persist(&format!("restore {name}"), || {
            self.user.api().create(&create, &manifest)
        })
        .await?;
        Ok(())
    }
}
