//! What to do next, in plain words: from the conditions, and from the cures in `docs/conditions.md`, so that page and
//! plugin never disagree. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{
    Webhook, WebhookStatus,
    conditions::{self, ConditionType, ReadyReason, Reason, SecretReason, TestedReason},
    webhook::TestMode,
    webhook_status::DeactivatedBy,
};

/// The page with a cure for each reason.
const PAGE: &str = include_str!("../../docs/conditions.md");

/// What is the matter, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Explanation {
    /// In a sentence.
    pub(super) matter: String,
    /// In the order in which to do it.
    pub(super) next: Vec<String>,
}

/// The cure of a reason, as text without links. `None`: no reason of this version.
pub(super) fn cure(type_: &str, reason: &str) -> Option<String> {
    let (_, section) = PAGE.split_once("\n## Webhook\n")?;
    let (_, table) = section.split_once(&format!("\n### {type_}\n"))?;
    let table = table.split("\n#").next()?;
    let row = table.lines().find(|line| {
        let name = line.strip_prefix("| `").and_then(|rest| rest.split('`').next());
        name == Some(reason)
    })?;
    let cell = row.trim_end().trim_end_matches('|').rsplit(" | ").next()?;
    Some(without_links(cell.trim()))
}

/// `[text](target)` becomes `text`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((label, (_, behind))) = after
            .split_once("](")
            .and_then(|(label, target)| Some((label, target.split_once(')')?)))
        else {
            break;
        };
        plain.push_str(before);
        plain.push_str(label);
        rest = behind;
    }
    plain + rest
}

/// What is the matter with a Webhook.
pub(super) fn explain(webhook: &Webhook) -> Explanation {
    let name = webhook.metadata.name.as_deref().unwrap_or_default();
    let nothing = WebhookStatus::default();
    let status = webhook.status.as_ref().unwrap_or(&nothing);
    let Some(ready) = conditions::find(&status.conditions, ConditionType::Ready) else {
        return Explanation {
            matter: "the operator has not looked at it yet".to_owned(),
            next: vec![
                "See whether the operator runs, and whether it serves this namespace (its option --namespace)".to_owned(),
            ],
        };
    };
    let mut explanation = Explanation {
        matter: format!("{}: {}", ready.reason, sentence(&ready.message)),
        next: Vec::new(),
    };
    if status.observed_generation < webhook.metadata.generation {
        explanation.next.push(
            "Wait: what is said here is about an older spec; if it stays, see whether the operator runs"
                .to_owned(),
        );
    }
    if ready.status == "True" {
        explanation.next.extend(beyond_ready(webhook, status));
        if explanation.next.is_empty() {
            explanation.next.push("Nothing to do".to_owned());
        }
        return explanation;
    }
    let culprit = culprit(status, ready);
    if culprit.type_ != ready.type_ && culprit.message != ready.message {
        let more = format!(
            "{} is {}: {}",
            culprit.type_,
            culprit.reason,
            sentence(&culprit.message)
        );
        explanation.matter = format!("{}\n{more}", explanation.matter);
    }
    explanation
        .next
        .extend(cure(&culprit.type_, &culprit.reason).map(|cure| format!("{cure}.")));
    explanation.next.extend(afterwards(status, culprit, name));
    explanation
}

/// The condition that says what to do: `Ready` only sums up.
fn culprit<'a>(status: &'a WebhookStatus, ready: &'a Condition) -> &'a Condition {
    let of = |type_| conditions::find(&status.conditions, type_);
    let is = |reason: ReadyReason| ready.reason == reason.as_str();
    let cause = if is(ReadyReason::TestFailed) || is(ReadyReason::NotYetTested) {
        of(ConditionType::Tested)
    } else if is(ReadyReason::UpstreamError) || is(ReadyReason::Progressing) {
        of(ConditionType::Synced)
    } else if is(ReadyReason::InvalidSpec) || is(ReadyReason::SecretNotFound) || is(ReadyReason::Conflict) {
        let readable = [
            SecretReason::NotFound,
            SecretReason::KeyMissing,
            SecretReason::TooShort,
            SecretReason::TooLong,
            SecretReason::NotOwned,
            SecretReason::NotRecoverable,
        ];
        of(ConditionType::SecretReady)
            .filter(|secret| readable.iter().any(|reason| reason.as_str() == secret.reason))
    } else {
        None
    };
    cause.filter(|cause| cause.status != "True").unwrap_or(ready)
}

/// What to know although it is Ready.
fn beyond_ready(webhook: &Webhook, status: &WebhookStatus) -> Vec<String> {
    let mut next = Vec::new();
    // With mode `None` there is no test because none is wanted.
    let tested = conditions::find(&status.conditions, ConditionType::Tested)
        .filter(|tested| tested.status != "True" && webhook.test_mode() != TestMode::None);
    if let Some(tested) = tested {
        let cure = cure(&tested.type_, &tested.reason).unwrap_or_default();
        next.push(format!(
            "Tested is {}: {}; {cure}",
            tested.reason,
            sentence(&tested.message)
        ));
    }
    if !status.gaps.is_empty() {
        next.push(
            "Ask the vendor to deliver once more what fell into the gaps, if that was not done".to_owned(),
        );
    }
    next
}

/// The command for afterwards.
fn afterwards(status: &WebhookStatus, culprit: &Condition, name: &str) -> Option<String> {
    let is_test = culprit.type_ == ConditionType::Tested.as_str();
    if status.deactivated_by == Some(DeactivatedBy::TestFailure) {
        return Some(format!(
            "It is switched off at the upstream until then; `kubectl webhook test {name} --wait` switches it on and tests it"
        ));
    }
    if is_test && culprit.reason != TestedReason::Pending.as_str() {
        return Some(format!("Then `kubectl webhook test {name} --wait`"));
    }
    None
}

/// A message without the full stop that the sentence around it sets.
fn sentence(message: &str) -> &str {
    message.trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::conditions::{ReconcilingReason, StalledReason, SyncedReason};

    fn every<R: Reason>() {
        for reason in R::ALL {
            let cure = cure(R::TYPE.as_str(), reason.as_str());
            let text = cure.unwrap_or_else(|| panic!("{} {}: no cure", R::TYPE, reason.as_str()));
            assert!(
                text.len() > 3 && !text.contains("](") && !text.contains('|'),
                "{text:?}"
            );
        }
    }

    #[test]
    fn every_reason_has_a_cure() {
        every::<ReadyReason>();
        every::<SyncedReason>();
        every::<TestedReason>();
        every::<SecretReason>();
        every::<ReconcilingReason>();
        every::<StalledReason>();
        assert_eq!(cure("Ready", "NoSuchReason"), None);
        // The same reason has another cure elsewhere.
        assert_ne!(cure("Synced", "Timeout"), cure("Tested", "Timeout"));
    }

    #[test]
    fn links_become_their_text() {
        for (text, plain) in [
            ("see [a](b.md#c), or [d](e)", "see a, or d"),
            ("plain", "plain"),
            ("half [open", "half [open"),
            ("[a] (b)", "[a] (b)"),
        ] {
            assert_eq!(without_links(text), plain);
        }
    }

    fn webhook(generation: i64, conditions: serde_json::Value, more: serde_json::Value) -> Webhook {
        let conditions: Vec<serde_json::Value> = conditions
            .as_array()
            .unwrap()
            .iter()
            .map(|condition| {
                json!({ "type": condition[0], "status": condition[1], "reason": condition[2], "message": condition[3],
                        "lastTransitionTime": "2026-01-01T00:00:00Z" })
            })
            .collect();
        let mut status = json!({ "observedGeneration": 1, "conditions": conditions });
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "webhook-operator.dev/v1alpha1", "kind": "Webhook",
            "metadata": { "name": "w", "generation": generation },
            "spec": { "providerRef": { "name": "p" }, "url": "https://a.example/" },
            "status": status,
        }))
        .unwrap()
    }

    /// All that is said, in one line.
    fn said(webhook: &Webhook) -> String {
        let explanation = explain(webhook);
        format!("{} => {}", explanation.matter, explanation.next.join(" | ")).replace('\n', "; ")
    }

    #[test]
    fn the_condition_that_knows_is_asked() {
        let failed = json!([
            ["Ready", "False", "TestFailed", "the last test failed"],
            ["Synced", "True", "InSync", ""],
            ["Tested", "False", "HttpStatus", "answered 500."],
        ]);
        let text = said(&webhook(1, failed.clone(), json!({})));
        assert_eq!(
            text,
            "TestFailed: the last test failed; Tested is HttpStatus: answered 500 => Look into the receiver's log. | Then `kubectl webhook test w --wait`"
        );
        let off = said(&webhook(1, failed, json!({ "deactivatedBy": "TestFailure" })));
        assert!(off.contains("switches it on and tests it"), "{off}");

        let upstream = json!([
            ["Ready", "False", "UpstreamError", "x"],
            ["Synced", "False", "RateLimited", "x"],
        ]);
        let text = said(&webhook(1, upstream, json!({})));
        assert_eq!(
            text,
            "UpstreamError: x => Wait, or lower `rateLimit` of the provider."
        );

        let secret = json!([
            ["Ready", "False", "InvalidSpec", "too short"],
            ["SecretReady", "False", "TooShort", "too short"],
        ]);
        assert!(said(&webhook(1, secret, json!({}))).contains("Use a longer one"));
        // Another field is wrong, and the secret is right.
        let field = json!([
            ["Ready", "False", "InvalidSpec", "spec.url"],
            ["SecretReady", "True", "Resolved", ""],
        ]);
        assert!(said(&webhook(1, field, json!({}))).contains("Correct the field"));
    }

    #[test]
    fn ready_is_not_always_the_end() {
        let fine = json!([
            ["Ready", "True", "Available", "fine"],
            ["Tested", "True", "Passed", ""]
        ]);
        assert_eq!(
            said(&webhook(1, fine.clone(), json!({}))),
            "Available: fine => Nothing to do"
        );
        let gaps = json!({ "gaps": [{ "from": "2026-01-01T00:00:00Z", "reason": "UrlChanged" }] });
        assert!(said(&webhook(1, fine.clone(), gaps)).contains("Ask the vendor"));
        let untested = json!([
            ["Ready", "True", "Available", "fine"],
            ["Tested", "Unknown", "NotRun", "nothing was changed"],
        ]);
        let mut untested = webhook(1, untested, json!({}));
        let text = said(&untested);
        assert!(
            text.contains("Tested is NotRun: nothing was changed; Nothing to do; a test is made"),
            "{text}"
        );
        untested.spec.test.mode = TestMode::None;
        assert_eq!(said(&untested), "Available: fine => Nothing to do");
        assert!(said(&webhook(2, fine, json!({}))).contains("an older spec"));
        let untouched = said(&webhook(1, json!([]), json!({})));
        assert!(untouched.contains("has not looked at it yet"), "{untouched}");
    }
}
