//! Every call that a dialect has, made with the same want, and what came of it in a few words.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use webhook_operator::{
    api::{
        provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium},
        webhook_status::State,
    },
    clock::Clock,
    domain::{
        desired::Desired,
        remote::{Look, Remote, RemoteId, Seen, TaskId},
    },
    provider::{
        Account, Credentials, Effect, Provider, ProviderError, Removal, TestProgress, Transport, Upstream,
        Usage,
    },
};

use crate::rig::call;

pub(super) const KINDS: [ProviderType; 4] = [Conpeek, Thulium, Ricloud, Autocosmos];

/// What is asked of a dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Look,
    List,
    Create,
    Change,
    SwitchOn,
    SwitchOff,
    Remove,
    StartTest,
    PollTest,
    IsUsed,
    UseIt,
    StopUsing,
}

/// One call in one situation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) kind: ProviderType,
    pub(super) op: Op,
    /// The same call went well before: the credentials and undocumented calls are known to work.
    pub(super) known: bool,
}

impl Case {
    pub(super) fn name(self) -> String {
        let name = match self.op {
            Op::Look => "look",
            Op::List => "list",
            Op::Create => "create",
            Op::Change => "change",
            Op::SwitchOn => "switch on",
            Op::SwitchOff => "switch off",
            Op::Remove => "remove",
            Op::StartTest => "start a test",
            Op::PollTest => "ask for the verdict",
            Op::IsUsed => "ask who uses it",
            Op::UseIt => "use it",
            Op::StopUsing => "stop using it",
        };
        format!("{name}{}", if self.known { ", known to work" } else { "" })
    }
}

/// All calls of an upstream that send something.
pub(super) fn cases(kind: ProviderType) -> Vec<Case> {
    use Op::{
        Change, Create, IsUsed, List, Look, PollTest, Remove, StartTest, StopUsing, SwitchOff, SwitchOn,
        UseIt,
    };
    let (new, known): (&[Op], &[Op]) = match kind {
        Conpeek => (&[Look, Create, Change], &[Look, Change]),
        Thulium => (&[List, Look, Create, Change, Remove], &[Remove]),
        Ricloud => (
            &[
                List, Look, Create, Change, SwitchOn, SwitchOff, Remove, StartTest, PollTest, IsUsed, UseIt,
                StopUsing,
            ],
            &[],
        ),
        Autocosmos => (&[Look, Create, Change, SwitchOff, Remove], &[]),
    };
    let case = |known| move |op: &Op| Case { kind, op: *op, known };
    new.iter()
        .map(case(false))
        .chain(known.iter().map(case(true)))
        .collect()
}

/// An account whose budget no test exhausts.
pub(super) fn account(
    kind: ProviderType,
    base: &str,
    timeout: Duration,
    transport: Arc<dyn Transport>,
    clock: Clock,
) -> Account {
    let credentials = match kind {
        Conpeek => Credentials::Conpeek {
            api_key: "kr0kodil-key".into(),
        },
        Thulium => Credentials::Thulium {
            username: "api".into(),
            password: "kr0kodil-password".into(),
        },
        Ricloud => Credentials::Ricloud {
            token: "kr0kodil-token".into(),
        },
        Autocosmos => Credentials::Autocosmos {
            app_key: "app".into(),
            app_secret: "kr0kodil-secret".into(),
        },
    };
    let mut account = Account::new(kind, base, credentials, (100_000, 100_000, 100), transport, clock);
    account.timeout = timeout;
    account
}

pub(super) fn want(kind: ProviderType) -> Desired {
    Desired {
        target: match kind {
            Conpeek => Some("9".to_owned()),
            Autocosmos => Some("precios".to_owned()),
            Thulium | Ricloud => None,
        },
        url: "https://a.example/".to_owned(),
        events: if kind == Thulium {
            BTreeSet::from(["TICKET_CREATED".to_owned()])
        } else {
            BTreeSet::new()
        },
        active: true,
        ..Desired::default()
    }
}

fn id_of(kind: ProviderType) -> RemoteId {
    RemoteId(want(kind).target.unwrap_or_else(|| "7".to_owned()))
}

/// What was read before the change: another address, on or off.
fn there(kind: ProviderType, on: bool) -> Remote {
    Remote {
        state: (!on).then_some(State::Deactivated),
        ..Remote::new(
            id_of(kind).0,
            if on {
                "https://old.example/"
            } else {
                "https://a.example/"
            },
        )
    }
}

/// Makes the call; what came of it.
pub(super) async fn make(case: Case, account: &Account) -> Result<String, ProviderError> {
    let (kind, upstream) = (case.kind, Upstream::from(case.kind));
    let (call, want, id) = (call(account), want(kind), id_of(kind));
    Ok(match case.op {
        Op::Look => seen(&upstream.look(&call, &Look::ById(id)).await?),
        Op::List => seen(&upstream.look(&call, &Look::All { inactive: true }).await?),
        Op::Create => made("made", &upstream.create(&call, &want).await?),
        Op::Change => made(
            "changed",
            &upstream
                .update(&call, &id, Some(&there(kind, true)), &want)
                .await?,
        ),
        Op::SwitchOn => made(
            "changed",
            &upstream
                .update(&call, &id, Some(&there(kind, false)), &want)
                .await?,
        ),
        Op::SwitchOff => removal(upstream.switch_off(&call, &id, Some(&want)).await?),
        Op::Remove => removal(upstream.remove(&call, &id, Some(&want)).await?),
        Op::StartTest => format!("task {}", upstream.start_test(&call, &id).await?.0),
        Op::PollTest => match upstream.poll_test(&call, &TaskId("5".to_owned())).await? {
            TestProgress::Running => "running",
            TestProgress::Done => "done",
            TestProgress::Vanished => "vanished",
        }
        .to_owned(),
        Op::IsUsed => match upstream.is_used(&call, &id, &Usage::Organisation).await? {
            true => "in use",
            false => "not in use",
        }
        .to_owned(),
        Op::UseIt => {
            upstream.use_it(&call, &id, &Usage::OwnKey).await?;
            "in use".to_owned()
        }
        Op::StopUsing => {
            upstream.stop_using(&call, &id, &Usage::OwnKey).await?;
            "not in use".to_owned()
        }
    })
}

fn seen(seen: &Seen) -> String {
    match seen {
        Seen::One(Some(_)) => "found".to_owned(),
        Seen::One(None) => "absent".to_owned(),
        Seen::All(all) => {
            let ids: Vec<&str> = all.iter().map(|remote| remote.id.0.as_str()).collect();
            format!("listed {}", ids.join(" "))
        }
        Seen::CannotKnow => "cannot be read".to_owned(),
    }
}

fn made(what: &str, remote: &Remote) -> String {
    let off = if remote.is_on() { "" } else { ", off" };
    format!("{what} {}{off}", remote.id)
}

fn removal(removal: Removal) -> String {
    match removal {
        Removal::Removed => "removed",
        Removal::AlreadyGone => "already gone",
        Removal::SwitchedOff => "switched off",
        Removal::LeftInPlace => "left in place",
    }
    .to_owned()
}

/// A result as it stands in the table: a success in words, or the class of the error, with a `?` where the call may
/// have had an effect all the same.
pub(super) fn outcome(result: &Result<String, ProviderError>) -> String {
    match result {
        Ok(said) => said.clone(),
        Err(error) => {
            let unsure = if error.effect == Effect::Unknown { "?" } else { "" };
            format!("**{}{unsure}**", error.class.as_str())
        }
    }
}
