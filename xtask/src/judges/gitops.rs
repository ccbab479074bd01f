//! The library by which Flux waits (kstatus) and the Lua that Argo CD runs health checks with judge every status that
//! the operator writes, as `tests/gitops/` has them.

use std::{collections::BTreeMap, fs};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Outcome, go::Program};
use crate::progress::{Failure, root};

/// Go module of the program that asks both.
const MODULE: &str = "tests/gitops/judge";
const STATUSES: [&str; 3] = ["webhook", "provider", "cluster-provider"];
const HEALTH: &str = "config/argocd/health.lua";

/// A status with what is expected of both.
#[derive(Debug, Deserialize)]
struct Case {
    title: String,
    #[serde(flatten)]
    verdicts: Verdicts,
    object: Value,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Verdicts {
    kstatus: String,
    argo: String,
}

/// What the program reads.
#[derive(Serialize)]
struct Question<'a> {
    lua: &'a str,
    objects: Vec<&'a Value>,
}

/// Has every status judged, and compares.
pub(super) fn run() -> Result<Outcome, Failure> {
    let program = match Program::new("gitops", MODULE)? {
        Ok(program) => program,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let cases = cases()?;
    let question = Question {
        lua: &fs::read_to_string(root().join(HEALTH))?,
        objects: cases.iter().map(|case| &case.object).collect(),
    };
    let output = program.run(serde_json::to_string(&question)?)?;
    let answers: Vec<Verdicts> = output
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    if answers.len() != cases.len() {
        return Err(Failure::new(format!(
            "{} statuses, {} answers",
            cases.len(),
            answers.len()
        )));
    }
    let wrong: Vec<String> = cases
        .iter()
        .zip(&answers)
        .filter(|(case, answer)| case.verdicts != **answer)
        .map(|(case, answer)| {
            let kind = case.object.get("kind").and_then(Value::as_str);
            format!(
                "{} {:?}: expected {:?}, it is {answer:?}",
                kind.unwrap_or_default(),
                case.title,
                case.verdicts
            )
        })
        .collect();
    if !wrong.is_empty() {
        return Err(Failure::new(wrong.join("\n")));
    }
    Ok(Outcome::Agrees(format!(
        "{} statuses, by kstatus ({}) and by Argo CD's Lua ({})",
        cases.len(),
        tally(&answers, |answer| &answer.kstatus),
        tally(&answers, |answer| &answer.argo)
    )))
}

fn cases() -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for name in STATUSES {
        let path = root().join("tests/gitops").join(name).with_extension("yaml");
        cases.extend(webhook_operator::yaml::parse_all::<Case>(&fs::read_to_string(
            path,
        )?)?);
    }
    Ok(cases)
}

/// Each verdict with how often it was given.
fn tally(answers: &[Verdicts], of: impl Fn(&Verdicts) -> &String) -> String {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for answer in answers {
        *counts.entry(of(answer)).or_default() += 1;
    }
    let words: Vec<String> = counts
        .into_iter()
        .map(|(verdict, count)| format!("{verdict} {count}"))
        .collect();
    words.join(", ")
}
