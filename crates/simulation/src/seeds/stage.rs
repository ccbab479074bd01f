//! The world of a plan before anything happens in it: accounts, namespaces, providers, Secrets, and the upstreams in
//! their forms.

use fastrand::Rng;
use serde_json::json;
use upstream_doubles::{
    BodyStyle, FlagEcho, IdStyle, Models, Paging, PasswordEcho, References, RefusalBody, ReplayRule,
};

use super::{
    draw::{SECRETS, secret_data},
    plan::Plan,
    weather::base_url,
};
use crate::{
    World,
    apiserver::Id,
    manifests::{self, Account},
};

/// The account of a namespace.
pub(super) fn account(plan: &Plan, namespace: &str) -> Account {
    if !plan.accounts {
        return Account::demo();
    }
    Account {
        name: format!("account-of-{namespace}"),
        password: format!("password-of-{namespace}"),
    }
}

/// The world of a plan.
pub(super) fn world(plan: &Plan) -> World {
    let mut world = World::new(plan.seed);
    if plan.broken {
        world.break_journal();
    }
    for form in &plan.forms {
        (form.behave)(world.upstreams());
    }
    turn_switches(world.upstreams(), &mut Rng::with_seed(plan.switches));
    world.wire().set_lag(plan.pace.watch);
    let api = world.api();
    for namespace in plan.namespaces() {
        if api.get(&Id::new("namespaces", "", namespace)).is_none() {
            api.namespace(namespace);
        }
        world.open(&account(plan, namespace));
        for (name, _) in SECRETS {
            let data = secret_data(name, 0);
            let data: Vec<(&str, &str)> = data.iter().map(|(key, value)| (*key, value.as_str())).collect();
            api.create(&manifests::secret(namespace, name, &data)).unwrap();
        }
    }
    for (place, rate) in &plan.places {
        let url = base_url(world.upstreams(), place.provider);
        let account = account(plan, place.namespace);
        let [secret, mut provider] = manifests::provider(place.namespace, place.provider, &url, &account);
        let limit = json!({"spec": {"rateLimit": {"requestsPerSecond": rate, "burst": rate}}});
        manifests::overlay(&mut provider, &limit);
        api.create(&secret).unwrap();
        api.create(&provider).unwrap();
    }
    world
}

/// What the documents of the upstreams leave open and makes no difference in the end.
fn turn_switches(models: &Models, dice: &mut Rng) {
    models.conpeek().change_behaviour(|it| {
        it.body_style = [BodyStyle::Flat, BodyStyle::Wrapped][dice.usize(0..2)];
        it.wrapped_answer = dice.bool();
        it.flag_echo = [FlagEcho::Integer, FlagEcho::Boolean, FlagEcho::Text][dice.usize(0..3)];
    });
    models.thulium().change_behaviour(|it| {
        it.paging = [Paging::LimitOffset, Paging::Ignored][dice.usize(0..2)];
        it.created_status = [200, 201][dice.usize(0..2)];
        it.password_echo = [PasswordEcho::Clear, PasswordEcho::Masked, PasswordEcho::Empty][dice.usize(0..3)];
        it.refusal_body = [RefusalBody::Json, RefusalBody::Html][dice.usize(0..2)];
        it.sorted_actions = dice.bool();
        it.options = dice.bool();
    });
    models.ricloud().change_behaviour(|it| {
        it.ids = [IdStyle::Text, IdStyle::Number][dice.usize(0..2)];
        it.references = [References::Id, References::Object][dice.usize(0..2)];
        it.test_millis = dice.u64(50..=10_000);
        it.refuse_test_body = dice.bool();
        it.url_reactivates = dice.bool();
        it.newest_first = dice.bool();
    });
    models.autocosmos().change_behaviour(|it| {
        it.replay_rule = [ReplayRule::All, ReplayRule::NonIdempotent, ReplayRule::Off][dice.usize(0..3)];
        it.absolute_location = dice.bool();
        it.refuse_unknown_fields = dice.bool();
        it.secret_echo = dice.bool();
    });
}
