//! Every condition type and reason, and how conditions are merged. Pure.
//!
//! Each reason belongs to one type and has one status, so "Ready=True/SecretNotFound" cannot be written.
//! What each means to a user is in `docs/`; which reason applies is decided elsewhere.

use std::fmt;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object is as its spec says: the summary of all others.
    Ready,
    /// The last write or read-back agreed with the spec.
    Synced,
    /// The last test passed.
    Tested,
    /// The signing secret is there; absent when none is referenced or written.
    SecretReady,
    /// Work is under way (kstatus); present only while True.
    Reconciling,
    /// No retry helps until something changes (kstatus); present only while True.
    Stalled,
}

impl ConditionType {
    /// Every type, in the order in which a new status lists them.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::Synced,
        Self::Tested,
        Self::SecretReady,
        Self::Reconciling,
        Self::Stalled,
    ];

    /// The type as it stands in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Synced => "Synced",
            Self::Tested => "Tested",
            Self::SecretReady => "SecretReady",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known yet.
    Unknown,
}

impl ConditionStatus {
    /// The word as it stands in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason of one condition type.
pub trait Reason: Copy + fmt::Debug + 'static {
    /// The type that the reason belongs to.
    const TYPE: ConditionType;

    /// Every reason of the type.
    const ALL: &'static [Self];

    /// The word as it stands in status.
    fn as_str(self) -> &'static str;

    /// The only status that this reason comes with.
    fn status(self) -> ConditionStatus;

    /// The whole condition. `generation` is the object's that the condition speaks of; `now` becomes
    /// `lastTransitionTime` unless [`merge`] finds that the status did not change.
    fn condition(self, generation: Option<i64>, message: impl Into<String>, now: Timestamp) -> Condition {
        Condition {
            type_: Self::TYPE.as_str().to_owned(),
            status: self.status().as_str().to_owned(),
            reason: self.as_str().to_owned(),
            message: message.into(),
            observed_generation: generation,
            last_transition_time: Time(now),
        }
    }
}

/// Writes an enum of reasons: name of the enum, its condition type, and under each status the reasons with
/// their meaning.
macro_rules! reasons {
    (
        $(#[$doc:meta])* $name:ident of $type:ident:
        $($status:ident { $($(#[$meaning:meta])* $reason:ident),+ $(,)? })+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($($(#[$meaning])* $reason,)+)+
        }

        impl Reason for $name {
            const TYPE: ConditionType = ConditionType::$type;
            const ALL: &'static [Self] = &[$($(Self::$reason,)+)+];

            fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$reason => stringify!($reason),)+)+
                }
            }

            fn status(self) -> ConditionStatus {
                match self {
                    $($(Self::$reason)|+ => ConditionStatus::$status,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

reasons! {
    /// Reasons of `Ready` of a Webhook.
    ReadyReason of Ready:
    True {
        /// The upstream is as the spec says, and the test passed where one is asked for.
        Available,
        /// Switched off at the upstream, as the spec wants.
        Deactivated,
    }
    Unknown {
        /// On the way.
        Progressing,
        /// Registered, the test has no verdict yet.
        NotYetTested,
        /// Being deleted.
        Deleting,
    }
    False {
        /// The Webhook or its provider is suspended.
        Suspended,
        /// The last test failed.
        TestFailed,
        /// Somebody else switched the registration off.
        DeactivatedUpstream,
        /// Its removal is held back by the provider's deletion limit.
        DeletionHeld,
        /// The upstream differs from the spec and is only reported.
        Drifted,
        /// Another Webhook or somebody else holds the registration.
        Conflict,
        /// The provider is missing, not allowed here, or cannot be used.
        ProviderNotReady,
        /// A Secret or a key in it is missing.
        SecretNotFound,
        /// The spec cannot be carried out as it is.
        InvalidSpec,
        /// The spec sets a field that the upstream does not have.
        UnsupportedField,
        /// The upstream refused or failed.
        UpstreamError,
    }
}

reasons! {
    /// Reasons of `Synced` of a Webhook.
    SyncedReason of Synced:
    True {
        /// Read back, and it agreed.
        InSync,
        /// Written.
        Applied,
        /// Found different and put right.
        DriftCorrected,
    }
    Unknown {
        /// Nothing written or read yet.
        Pending,
        /// The upstream's answer was not understood.
        UnexpectedResponse,
        /// A registration was sent and its answer got lost.
        CreateOutcomeUnknown,
    }
    False {
        /// Found different, only reported.
        DriftDetected,
        /// The upstream refused the credentials.
        Unauthorized,
        /// The credentials do not allow it.
        Forbidden,
        /// The target does not exist at the upstream.
        TargetNotFound,
        /// The upstream refused the content.
        Rejected,
        /// The upstream asked for fewer calls.
        RateLimited,
        /// The upstream did not answer in time.
        Timeout,
        /// The upstream could not be reached.
        Unreachable,
        /// The upstream's address is in a network that the operator may not reach.
        BlockedAddress,
        /// The registration cannot be changed at the upstream.
        UpdateUnsupported,
        /// Another Webhook or somebody else holds the registration.
        Conflict,
    }
}

reasons! {
    /// Reasons of `Tested` of a Webhook.
    TestedReason of Tested:
    True {
        /// The receiver took the delivery.
        Passed,
    }
    Unknown {
        /// A test is due or under way.
        Pending,
        /// Nobody tests.
        NotRun,
        /// The upstream's test did not end in time.
        TestTimeout,
    }
    False {
        /// The receiver's name has no address.
        DnsFailed,
        /// The receiver's address is in a network that the operator may not reach.
        BlockedAddress,
        /// No connection to the receiver.
        ConnectFailed,
        /// The receiver's TLS certificate was refused.
        TlsFailed,
        /// The receiver did not answer in time.
        Timeout,
        /// The receiver answered with a redirect.
        Redirected,
        /// The receiver answered with another HTTP status than 2xx.
        HttpStatus,
        /// The receiver refused the signature.
        SignatureRejected,
        /// The receiver accepted a wrong signature.
        ForgeryAccepted,
        /// The upstream's own test failed.
        UpstreamReportedInvalid,
    }
}

reasons! {
    /// Reasons of `SecretReady` of a Webhook.
    SecretReason of SecretReady:
    True {
        /// Read from the Secret.
        Resolved,
        /// Written to the Secret.
        Published,
    }
    False {
        /// The Secret does not exist.
        NotFound,
        /// The Secret has no such key.
        KeyMissing,
        /// The secret is shorter than the upstream takes.
        TooShort,
        /// The secret is longer than the upstream takes.
        TooLong,
        /// The Secret to be written exists and belongs to somebody else.
        NotOwned,
        /// The upstream made the secret, and it cannot be read again.
        NotRecoverable,
    }
}

reasons! {
    /// Reasons of `Reconciling` of a Webhook.
    ReconcilingReason of Reconciling:
    True {
        /// On the way.
        Progressing,
        /// Failed, will be tried again.
        Retrying,
        /// Waiting for the verdict of a test.
        WaitingForTest,
    }
}

reasons! {
    /// Reasons of `Stalled` of a Webhook.
    StalledReason of Stalled:
    True {
        /// The spec cannot be carried out as it is.
        InvalidSpec,
        /// The spec sets a field that the upstream does not have.
        UnsupportedField,
        /// The upstream refused the content.
        Rejected,
        /// Another Webhook or somebody else holds the registration.
        Conflict,
        /// The upstream made the secret, and it cannot be read again.
        NotRecoverable,
    }
}

reasons! {
    /// Reasons of `Ready` of a provider.
    ProviderReason of Ready:
    True {
        /// The upstream accepted a call with the credentials.
        Verified,
    }
    Unknown {
        /// No call was accepted or refused yet.
        NotVerified,
    }
    False {
        /// The credentials Secret does not exist.
        SecretNotFound,
        /// The credentials Secret lacks a key.
        KeyMissing,
        /// The upstream refused the credentials.
        Unauthorized,
        /// The upstream could not be reached.
        Unreachable,
        /// The upstream's address is in a network that the operator may not reach.
        BlockedAddress,
        /// The provider is suspended.
        Suspended,
        /// The spec cannot be carried out as it is.
        InvalidSpec,
    }
}

/// The condition of a type, if it is there.
#[must_use]
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

/// Puts a condition in, in the place of the one with its type, else at the end. `lastTransitionTime` stays
/// when the status stays.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition) {
    match conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

/// Takes a condition out; nothing happens if it is not there.
pub fn remove(conditions: &mut Vec<Condition>, type_: ConditionType) {
    conditions.retain(|condition| condition.type_ != type_.as_str());
}

/// The conditions of a new status: exactly those of `new`, so what is not among them is removed.
///
/// Conditions that were there keep their place, others follow in the order of `new`: a status that did not
/// change compares equal. `lastTransitionTime` moves only where the status of the condition changed.
#[must_use]
pub fn merge(old: &[Condition], new: impl IntoIterator<Item = Condition>) -> Vec<Condition> {
    let mut merged = old.to_vec();
    let mut wanted: Vec<String> = Vec::new();
    for condition in new {
        wanted.push(condition.type_.clone());
        set(&mut merged, condition);
    }
    merged.retain(|condition| wanted.contains(&condition.type_));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(conditions: &[Condition]) -> Vec<&str> {
        conditions
            .iter()
            .map(|condition| condition.type_.as_str())
            .collect()
    }

    /// `status: reasons` of one type, for comparison with the documented table.
    fn table<R: Reason>() -> Vec<(&'static str, Vec<&'static str>)> {
        [
            ConditionStatus::True,
            ConditionStatus::Unknown,
            ConditionStatus::False,
        ]
        .into_iter()
        .map(|status| {
            let with = R::ALL.iter().filter(|reason| reason.status() == status);
            (
                status.as_str(),
                with.map(|reason| reason.as_str()).collect::<Vec<_>>(),
            )
        })
        .filter(|(_, reasons)| !reasons.is_empty())
        .collect()
    }

    fn expect<R: Reason>(rows: &[(&str, &str)]) {
        let rows: Vec<(&str, Vec<&str>)> = rows
            .iter()
            .map(|(status, reasons)| (*status, reasons.split(' ').collect()))
            .collect();
        assert_eq!(table::<R>(), rows);
    }

    /// Alerts and scripts match on these words: the table is the documented one, not derived from the code.
    #[test]
    fn types_and_reasons_never_change_silently() {
        assert_eq!(
            ConditionType::ALL.map(ConditionType::as_str),
            [
                "Ready",
                "Synced",
                "Tested",
                "SecretReady",
                "Reconciling",
                "Stalled"
            ]
        );
        expect::<ReadyReason>(&[
            ("True", "Available Deactivated"),
            ("Unknown", "Progressing NotYetTested Deleting"),
            (
                "False",
                "Suspended TestFailed DeactivatedUpstream DeletionHeld Drifted Conflict ProviderNotReady SecretNotFound InvalidSpec UnsupportedField UpstreamError",
            ),
        ]);
        expect::<SyncedReason>(&[
            ("True", "InSync Applied DriftCorrected"),
            ("Unknown", "Pending UnexpectedResponse CreateOutcomeUnknown"),
            (
                "False",
                "DriftDetected Unauthorized Forbidden TargetNotFound Rejected RateLimited Timeout Unreachable BlockedAddress UpdateUnsupported Conflict",
            ),
        ]);
        expect::<TestedReason>(&[
            ("True", "Passed"),
            ("Unknown", "Pending NotRun TestTimeout"),
            (
                "False",
                "DnsFailed BlockedAddress ConnectFailed TlsFailed Timeout Redirected HttpStatus SignatureRejected ForgeryAccepted UpstreamReportedInvalid",
            ),
        ]);
        expect::<SecretReason>(&[
            ("True", "Resolved Published"),
            (
                "False",
                "NotFound KeyMissing TooShort TooLong NotOwned NotRecoverable",
            ),
        ]);
        expect::<ReconcilingReason>(&[("True", "Progressing Retrying WaitingForTest")]);
        expect::<StalledReason>(&[(
            "True",
            "InvalidSpec UnsupportedField Rejected Conflict NotRecoverable",
        )]);
        expect::<ProviderReason>(&[
            ("True", "Verified"),
            ("Unknown", "NotVerified"),
            (
                "False",
                "SecretNotFound KeyMissing Unauthorized Unreachable BlockedAddress Suspended InvalidSpec",
            ),
        ]);
    }

    #[test]
    fn a_condition_carries_everything() {
        let condition = ReadyReason::Available.condition(Some(3), "fine", at(5));
        assert_eq!(
            serde_json::to_value(&condition).unwrap(),
            serde_json::json!({
                "type": "Ready", "status": "True", "reason": "Available", "message": "fine",
                "observedGeneration": 3, "lastTransitionTime": "1970-01-01T00:00:05Z",
            })
        );
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let old = [ReadyReason::Progressing.condition(Some(1), "a", at(1))];
        let same = merge(&old, [ReadyReason::NotYetTested.condition(Some(2), "b", at(9))]);
        assert_eq!(same[0].last_transition_time, Time(at(1)));
        assert_eq!(
            (same[0].reason.as_str(), same[0].message.as_str()),
            ("NotYetTested", "b")
        );
        assert_eq!(same[0].observed_generation, Some(2));

        let changed = merge(&same, [ReadyReason::Available.condition(Some(2), "b", at(9))]);
        assert_eq!(changed[0].last_transition_time, Time(at(9)));
    }

    #[test]
    fn merging_the_same_again_changes_nothing() {
        let conditions = |second| {
            [
                SyncedReason::Applied.condition(Some(1), "", at(second)),
                ReadyReason::Available.condition(Some(1), "", at(second)),
            ]
        };
        let first = merge(&[], conditions(1));
        let reversed = conditions(2).into_iter().rev();
        assert_eq!(merge(&first, reversed), first);
    }

    #[test]
    fn what_is_left_out_is_removed_and_the_rest_keeps_its_place() {
        let old = [
            ReconcilingReason::Retrying.condition(None, "", at(1)),
            ReadyReason::Progressing.condition(None, "", at(1)),
            SyncedReason::Pending.condition(None, "", at(1)),
        ];
        let merged = merge(
            &old,
            [
                TestedReason::Passed.condition(None, "", at(2)),
                SyncedReason::Applied.condition(None, "", at(2)),
                ReadyReason::Available.condition(None, "", at(2)),
            ],
        );
        assert_eq!(types(&merged), ["Ready", "Synced", "Tested"]);
    }

    #[test]
    fn set_find_and_remove_work_by_type() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            ReadyReason::Progressing.condition(None, "", at(1)),
        );
        set(
            &mut conditions,
            StalledReason::Rejected.condition(None, "", at(1)),
        );
        set(
            &mut conditions,
            ReadyReason::UpstreamError.condition(None, "", at(2)),
        );
        assert_eq!(types(&conditions), ["Ready", "Stalled"]);
        let ready = find(&conditions, ConditionType::Ready).unwrap();
        assert_eq!(
            (ready.reason.as_str(), &ready.last_transition_time),
            ("UpstreamError", &Time(at(2)))
        );

        remove(&mut conditions, ConditionType::Stalled);
        remove(&mut conditions, ConditionType::Tested);
        assert_eq!(types(&conditions), ["Ready"]);
        assert!(find(&conditions, ConditionType::Stalled).is_none());
    }
}
