//! The offline check on the manifests that `schema` sends to a real apiserver: the same verdicts, in the same
//! words.

use std::path::PathBuf;

use serde_json::Value;
use webhook_operator::{
    check::{Finding, Judge, Severity, input},
    yaml,
};

use crate::manifests::cases;

/// What is found in one object; a Webhook's provider is not there, so only form and rules are judged.
fn errors(judge: &Judge, object: &Value) -> Vec<Finding> {
    let text = yaml::to_string(object).unwrap();
    let documents = input::parse("manifest.yaml", &text).unwrap();
    judge
        .judge(&documents, None)
        .findings
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect()
}

#[test]
fn accepts_what_the_apiserver_accepts() {
    let judge = Judge::new().unwrap();
    let mut refused = Vec::new();
    for case in cases("accepted") {
        for object in case.documents() {
            let found = errors(&judge, object);
            if !found.is_empty() {
                refused.push((case.title.clone(), found));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn refuses_what_the_apiserver_refuses_in_the_same_words() {
    let judge = Judge::new().unwrap();
    let (mut wrong, mut judged, mut skipped) = (Vec::new(), 0, 0);
    for case in cases("refused") {
        let expect = case.expect.as_deref().unwrap();
        let last = case.documents().last().unwrap();
        let found = errors(&judge, last);
        if case.update.is_some() && expect.contains("immutable") {
            // Rules that compare with what was there before cannot be judged, and must not be guessed.
            skipped += 1;
            if !found.is_empty() {
                wrong.push(format!("{}: {found:#?}", case.title));
            }
            continue;
        }
        judged += 1;
        if !found
            .iter()
            .any(|finding| format!("{}: {}", finding.field, finding.message).contains(expect))
        {
            wrong.push(format!("{}\n  want: {expect}\n  have: {found:#?}", case.title));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(judged > 250 && skipped > 5, "judged {judged}, skipped {skipped}");
}

#[test]
fn the_examples_are_clean_and_judged_by_their_upstream() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (documents, errors) = input::read(&[folder], std::io::empty());
    assert!(errors.is_empty(), "{errors:?}");
    let verdict = Judge::new().unwrap().judge(&documents, None);
    // No notes either: every example brings its provider.
    assert!(verdict.findings.is_empty(), "{:#?}", verdict.findings);
    assert!(verdict.checked >= 8, "{verdict:?}");
}
