//! What is known of Webhooks beyond what is in the cluster: those that are gone, what was registered for each at any
//! time, and what people did at the upstreams.

use serde_json::Value;
use upstream_doubles::Models;
use webhook_operator::api::{ID_ANNOTATION, provider::ProviderType};

use crate::explore::{
    Dialect,
    dialect::Left,
    registered::{self, Registration},
    webhook::{annotation, text},
};

/// One life of a Webhook.
pub(super) struct Life {
    pub(super) uid: String,
    pub(super) label: String,
    pub(super) form: &'static Dialect,
    /// Where an upstream knows it by this.
    target: Option<String>,
    /// Every URL that its registration can have, by its user's wish or by hand.
    pub(super) urls: Vec<String>,
    pub(super) end: Option<End>,
}

impl Life {
    /// Whether it could take over what another one has left.
    fn can_have(&self, other: &Self) -> bool {
        self.label == other.label
            || (self.target.is_some() && self.target == other.target)
            || self.urls.iter().any(|url| other.urls.contains(url))
    }
}

/// How a life has ended.
pub(super) struct End {
    /// How many had ended before.
    order: usize,
    /// What is to become of its registration.
    pub(super) left: Left,
    /// Ids of what was registered for it then.
    pub(super) ids: Vec<String>,
}

/// What somebody has registered without the operator.
pub(super) struct Foreign {
    pub(super) provider: ProviderType,
    pub(super) registration: Registration,
}

/// All of them.
#[derive(Default)]
pub(super) struct Lives {
    pub(super) all: Vec<Life>,
    pub(super) foreign: Vec<Foreign>,
    /// What people have removed.
    removed: Vec<(ProviderType, String)>,
}

/// What becomes of its registration when a Webhook is deleted as it is now.
fn left(webhook: &Value, form: &Dialect) -> Left {
    if webhook["spec"]["suspend"] == true {
        // It is not called any more, and stays as with `Orphan`.
        return Left::AsItWas;
    }
    match text(&webhook["spec"]["deletionPolicy"]) {
        "Orphan" => Left::AsItWas,
        "Deactivate" => Left::SwitchedOff,
        _ => form.delete,
    }
}

impl Lives {
    /// A Webhook has been applied.
    pub(super) fn begin(&mut self, webhook: &Value, form: &'static Dialect) {
        let metadata = &webhook["metadata"];
        self.all.push(Life {
            uid: text(&metadata["uid"]).to_owned(),
            label: format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"])),
            form,
            target: webhook["spec"]["target"].as_str().map(str::to_owned),
            urls: vec![text(&webhook["spec"]["url"]).to_owned()],
            end: None,
        });
    }

    /// The life of a Webhook that is in the cluster.
    pub(super) fn of(&mut self, webhook: &Value) -> Option<&mut Life> {
        let uid = text(&webhook["metadata"]["uid"]);
        self.all.iter_mut().find(|life| life.uid == uid)
    }

    /// A Webhook has another URL.
    pub(super) fn moves(&mut self, webhook: &Value, url: &str) {
        if let Some(life) = self.of(webhook) {
            life.urls.push(url.to_owned());
        }
    }

    /// A Webhook is about to be deleted.
    pub(super) fn end(&mut self, webhook: &Value, models: &Models) {
        let recorded = annotation(webhook, ID_ANNOTATION).unwrap_or_default().to_owned();
        let order = self.all.iter().filter(|life| life.end.is_some()).count();
        if let Some(life) = self.of(webhook).filter(|life| life.end.is_none()) {
            let there = registered::at(models, life.form.provider);
            let ids = there
                .into_iter()
                .filter(|it| it.id == recorded && life.urls.contains(&it.url))
                .map(|it| it.id);
            life.end = Some(End {
                order,
                left: left(webhook, life.form),
                ids: ids.collect(),
            });
        }
    }

    /// Somebody has removed a registration.
    pub(super) fn removed(&mut self, provider: ProviderType, id: String) {
        self.removed.push((provider, id));
    }

    /// Somebody has registered something.
    pub(super) fn registered(&mut self, models: &Models, provider: ProviderType, id: &str) {
        let found = registered::at(models, provider)
            .into_iter()
            .find(|it| it.id == id);
        self.foreign.extend(found.map(|registration| Foreign {
            provider,
            registration,
        }));
    }

    /// Whether it was registered for a life when that ended.
    fn is_recorded(&self, provider: ProviderType, id: &String) -> bool {
        let lives = self.all.iter().filter(|life| life.form.provider == provider);
        lives
            .filter_map(|life| life.end.as_ref())
            .any(|end| end.ids.contains(id))
    }

    /// What is wrong with the registrations of an upstream that belong to no Webhook that is there: `rest`. `all` is
    /// everything that is registered there.
    pub(super) fn judge(
        &self,
        provider: ProviderType,
        all: &[Registration],
        mut rest: Vec<Registration>,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        for foreign in self.foreign.iter().filter(|it| it.provider == provider) {
            let wanted = &foreign.registration;
            match rest.iter().position(|it| it.id == wanted.id) {
                // What a stranger has registered is tested there like everything else.
                Some(position) => {
                    let found = rest.remove(position);
                    if (&found.url, found.on, &found.content) != (&wanted.url, wanted.on, &wanted.content) {
                        wrong.push(format!("a stranger's {wanted:?} was changed to {found:?}"));
                    }
                }
                None => wrong.push(format!("a stranger's {wanted:?} is gone, or taken")),
            }
        }
        // The last that ended first: it may hold what an earlier one has left.
        let mut ended: Vec<(&Life, &End)> = self
            .all
            .iter()
            .filter(|life| life.form.provider == provider)
            .filter_map(|life| Some((life, life.end.as_ref()?)))
            .collect();
        ended.sort_by_key(|(_, end)| std::cmp::Reverse(end.order));
        for (position, (life, end)) in ended.iter().enumerate() {
            if end.left == Left::Nothing {
                continue;
            }
            let label = &life.label;
            // Those that could have had it as well, and have ended as well: who took it over from this one ended later.
            let among = |others: &[(&Life, &End)], left: Left| {
                let mut others = others.iter();
                others.any(|(other, end)| {
                    end.left == left && !std::ptr::eq(*other, *life) && other.can_have(life)
                })
            };
            let later = &ended[..position];
            // One life, one registration: a second one of the same is left for the complaint below. Lives of one name
            // may have had the same URL, so what was recorded goes first.
            let recorded = rest.iter().position(|it| end.ids.contains(&it.id));
            let of_it =
                |it: &Registration| life.urls.contains(&it.url) && !self.is_recorded(provider, &it.id);
            if let Some(position) = recorded.or_else(|| rest.iter().position(of_it)) {
                let kept = rest.remove(position);
                // Who leaves it as it was may have switched it on, and have been deleted before that was recorded. And
                // what nobody has recorded may be of any of them.
                let as_it_was = if recorded.is_some() { later } else { &ended };
                if end.left == Left::SwitchedOff && kept.on && !among(as_it_was, Left::AsItWas) {
                    wrong.push(format!("what {label} has left is on: {kept:?}"));
                }
            }
            for id in &end.ids {
                let by_hand = self.removed.contains(&(provider, id.clone()));
                // One whose secret is lost is removed to be made anew, and its user may suspend it in between.
                let secretive = life.form.name == "ricloud-secretive";
                if !by_hand
                    && !secretive
                    && !among(later, Left::Nothing)
                    && !all.iter().any(|it| it.id == *id)
                {
                    wrong.push(format!(
                        "{label} keeps {id} ({:?}), and it is not there",
                        end.left
                    ));
                }
            }
        }
        wrong.extend(rest.iter().map(|it| {
            format!(
                "registered at {} and nobody's: {} {} (on: {})",
                provider.as_str(),
                it.id,
                it.url,
                it.on
            )
        }));
        wrong
    }
}
