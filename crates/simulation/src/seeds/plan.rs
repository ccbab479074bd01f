//! What happens in a run: everything is decided before it begins, so that it can be told, repeated and made smaller.

use std::{fmt, time::Duration};

use serde_json::Value;
use webhook_operator::api::provider::ProviderType;

use crate::{apiserver::Blur, explore::Dialect};

/// A provider in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Namespace.
    pub namespace: &'static str,
    /// Its type, of which it has the name.
    pub provider: ProviderType,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.provider.as_str())
    }
}

/// One life of a Webhook, from when it is applied until it is deleted.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Where.
    pub place: Place,
    /// Name; a later life may have the same.
    pub name: String,
    /// Its spec when it is applied, on top of the least that its upstream needs.
    pub spec: Value,
}

/// How the name of a Webhook ends that asks for the same as another one.
const RIVAL: &str = "-rival";

impl Hook {
    /// One that asks for the same.
    pub(super) fn rival(&self) -> Self {
        Self {
            name: format!("{}{RIVAL}", self.name),
            ..self.clone()
        }
    }

    /// Whether it asks for the same as another one.
    pub(super) fn is_rival(&self) -> bool {
        self.name.ends_with(RIVAL)
    }
}

/// Which replica is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replica {
    /// The one that has the Lease; the only one where there is one.
    Leader,
    /// Another one.
    Standby,
}

/// Whom trouble meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Calls of the API server.
    ApiServer,
    /// Calls of an upstream.
    Upstream(ProviderType),
}

/// What becomes of the calls that trouble meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens.
    Refused,
    /// It never arrives.
    Lost,
    /// It has its effect, and its answer never comes.
    AnswerLost,
    /// It has its effect so many seconds later, and its caller waits in vain.
    Late(u64),
    /// It is answered by a status and has no effect.
    Fails(u16),
    /// It is answered by 429 and told to come back in so many seconds.
    TooMany(u64),
    /// It has its effect, and its answer is no JSON.
    Malformed,
    /// It has its effect, and its answer is a page of HTML.
    Page,
    /// It has its effect, and half of its answer comes.
    Truncated,
    /// It arrives so many milliseconds later, or its caller has given up before.
    Slow(u64),
    /// Its answer takes so many milliseconds more.
    SlowAnswer(u64),
    /// Somebody changes the object just before it arrives.
    Conflicts,
    /// The process dies before it.
    DiesBefore,
    /// It has its effect, and the process dies before its answer.
    DiesAfter,
}

impl Trouble {
    /// Whether it is a death of the process.
    #[must_use]
    pub const fn kills(self) -> bool {
        matches!(self, Self::DiesBefore | Self::DiesAfter)
    }
}

/// Calls that go wrong for a while.
#[derive(Clone, Debug)]
pub struct Spell {
    /// Whose.
    pub whom: Whom,
    /// How.
    pub trouble: Trouble,
    /// How many of a hundred.
    pub percent: u8,
    /// For so long.
    pub lasts: Duration,
    /// What is drawn for each of its calls.
    pub seed: u64,
}

/// What is done at one time.
#[derive(Clone, Debug)]
pub enum Deed {
    /// A user applies the Webhook of this number, again and again until there is none of that name on its way out.
    Apply(usize),
    /// A user changes its spec.
    Edit(usize, Value),
    /// A user sets an annotation, which asks for something.
    Ask(usize, &'static str),
    /// A user stops it, and lets it go on so much later.
    Suspend(usize, Duration),
    /// A user deletes it.
    Delete(usize),
    /// A user changes what a Secret holds.
    EditSecret {
        /// Where.
        namespace: &'static str,
        /// Name.
        name: &'static str,
        /// Keys and values.
        data: Vec<(&'static str, String)>,
    },
    /// A user deletes a provider, and so much later its Webhooks.
    DropProvider(Place, Duration),
    /// A user deletes a namespace.
    DropNamespace(&'static str),
    /// Somebody gives its registration another URL at the upstream.
    ByHandUrl(usize, String),
    /// Somebody removes its registration at the upstream.
    ByHandRemove(usize),
    /// Somebody switches its registration on or off at the upstream.
    ByHandSwitch(usize, bool),
    /// What the provider's Secret holds is refused by the upstream for so long: the key was changed there first.
    Revoke(Place, Duration),
    /// Somebody registers something of their own there, with this URL.
    Stranger(ProviderType, String),
    /// A process dies.
    Kill(Replica),
    /// Nothing reaches a process from the API server, nor it from the process, for so long.
    CutOff(Replica, Duration),
    /// Lists and watches show nothing newer for so long.
    Freeze(Duration),
    /// Watches that are open say nothing any more.
    Mute,
    /// Watches show some changes late, merged with what follows, or twice.
    Blur(Blur),
    /// What happened until now is forgotten.
    Compact,
    /// Calls go wrong.
    Spell(Spell),
}

/// Something that happens.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number, which stays its own when others are left out.
    pub number: usize,
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// How long calls take when nothing is wrong, drawn for each between nothing and these.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Each way to the API server.
    pub api_server: Duration,
    /// Each way to an upstream.
    pub upstream: Duration,
    /// How long after a change a watch shows it.
    pub watch: Duration,
    /// Longest time until a process that ended is started again.
    pub restart: Duration,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// Processes create without looking first: to show that this is found.
    pub broken: bool,
    /// Two replicas with a Lease, or one without.
    pub pair: bool,
    /// Each namespace has an account of its own; otherwise all share one.
    pub accounts: bool,
    /// The upstreams, each in one form.
    pub forms: Vec<&'static Dialect>,
    /// Where Webhooks are, with how many calls a second the provider allows.
    pub places: Vec<(Place, u32)>,
    /// All Webhooks that are ever applied.
    pub hooks: Vec<Hook>,
    /// Draws what the upstreams do where their documents leave it open and nobody can see it in the end.
    pub switches: u64,
    /// How long calls take.
    pub pace: Pace,
    /// How long things happen.
    pub span: Duration,
    /// What happens, in the order of time.
    pub events: Vec<Event>,
}

impl Plan {
    /// The form of an upstream.
    #[must_use]
    pub fn form(&self, provider: ProviderType) -> &'static Dialect {
        let form = self.forms.iter().find(|form| form.provider == provider);
        form.expect("every upstream has a form")
    }

    /// The namespaces, each once.
    #[must_use]
    pub fn namespaces(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.places.iter().map(|(place, _)| place.namespace).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The same without some of its events.
    #[must_use]
    pub fn without(&self, numbers: &[usize]) -> Self {
        let mut plan = self.clone();
        plan.events.retain(|event| !numbers.contains(&event.number));
        plan
    }

    /// What there is before anything happens.
    #[must_use]
    pub fn ground(&self) -> String {
        let forms: Vec<&str> = self.forms.iter().map(|form| form.name).collect();
        let places: Vec<String> = self
            .places
            .iter()
            .map(|(place, rate)| format!("{place} ({rate}/s)"))
            .collect();
        format!(
            "seed {}: {} replica(s), {} account(s), {} min; {}; {}; {:?}",
            self.seed,
            if self.pair { 2 } else { 1 },
            if self.accounts { "own" } else { "one" },
            self.span.as_secs() / 60,
            forms.join(", "),
            places.join(", "),
            self.pace,
        )
    }

    /// A deed in words.
    #[must_use]
    pub fn tell(&self, deed: &Deed) -> String {
        let name = |hook: &usize| {
            let hook = &self.hooks[*hook];
            format!("{}/{}", hook.place.namespace, hook.name)
        };
        match deed {
            Deed::Apply(hook) => {
                let Hook { place, spec, .. } = &self.hooks[*hook];
                format!("apply {} at {}: {spec}", name(hook), place.provider.as_str())
            }
            Deed::Edit(hook, spec) => format!("edit {}: {spec}", name(hook)),
            Deed::Ask(hook, what) => format!("annotate {}: {what}", name(hook)),
            Deed::Suspend(hook, time) => format!("suspend {} for {} s", name(hook), time.as_secs()),
            Deed::Delete(hook) => format!("delete {}", name(hook)),
            Deed::EditSecret {
                namespace,
                name,
                data,
            } => format!("Secret {namespace}/{name}: {data:?}"),
            Deed::DropProvider(place, after) => {
                format!(
                    "delete provider {place}, and its Webhooks {} s later",
                    after.as_secs()
                )
            }
            Deed::DropNamespace(namespace) => format!("delete namespace {namespace}"),
            Deed::ByHandUrl(hook, url) => format!("by hand: registration of {} gets {url}", name(hook)),
            Deed::ByHandRemove(hook) => format!("by hand: registration of {} is removed", name(hook)),
            Deed::ByHandSwitch(hook, on) => format!("by hand: registration of {} is on: {on}", name(hook)),
            Deed::Revoke(place, time) => {
                format!("the key of provider {place} is refused for {} s", time.as_secs())
            }
            Deed::Stranger(provider, url) => format!("by hand: a stranger's {url} at {}", provider.as_str()),
            Deed::Kill(replica) => format!("kill the {replica:?}"),
            Deed::CutOff(replica, time) => {
                format!("the {replica:?} has no API server for {} s", time.as_secs())
            }
            Deed::Freeze(time) => format!("lists and watches stand still for {} s", time.as_secs()),
            Deed::Mute => "open watches fall silent".to_owned(),
            Deed::Blur(blur) => format!(
                "for {} s watches keep {} % of all changes for up to {} s, merge them or show them twice",
                blur.lasts.as_secs(),
                blur.percent,
                blur.longest.as_secs()
            ),
            Deed::Compact => "old versions are forgotten".to_owned(),
            Deed::Spell(spell) => format!(
                "{} % of the calls of {:?} for {} s: {:?}",
                spell.percent,
                spell.whom,
                spell.lasts.as_secs(),
                spell.trouble
            ),
        }
    }
}
