//! kube-score, and what of it is borne.

use std::process::Command;

use serde::Deserialize;

use crate::{
    judges::{ask, go::Program},
    progress::Failure,
};

/// Below this grade kube-score warns (5) or calls a finding critical (1).
const FINE: u8 = 7;

/// A finding that is borne: a check, the sets of values in which it fails, and why.
struct Borne {
    check: &'static str,
    sets: &'static [&'static str],
    /// Said in the judge's report when the finding is gone.
    why: &'static str,
}

/// All sets but the one that sets everything.
const PLAIN: &[&str] = &[
    "default-values.yaml",
    "namespaced-values.yaml",
    "two-replicas-values.yaml",
];

const BORNE: &[Borne] = &[
    Borne {
        check: "container-resources",
        sets: PLAIN,
        why: "a limit of the processor only delays the operator when many Webhooks change at once",
    },
    Borne {
        check: "container-image-pull-policy",
        sets: PLAIN,
        why: "a version's tag is never moved, and a registry that is away must not keep a pod from starting",
    },
    Borne {
        check: "deployment-replicas",
        sets: &["default-values.yaml", "namespaced-values.yaml"],
        why: "one replica is enough where half a minute without the operator is",
    },
    Borne {
        check: "pod-networkpolicy",
        sets: &["default-values.yaml"],
        why: "whether policies are enforced, and where the upstreams are, only the user knows",
    },
];

/// What came of a set of manifests.
pub(super) struct Score {
    pub(super) passed: usize,
    pub(super) accepted: usize,
    pub(super) complaints: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Scored {
    object_name: String,
    checks: Vec<Checked>,
}

#[derive(Debug, Deserialize)]
struct Checked {
    check: Check,
    grade: u8,
    skipped: bool,
    comments: Option<Vec<Comment>>,
}

#[derive(Debug, Deserialize)]
struct Check {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Comment {
    path: String,
    summary: String,
}

/// Has manifests scored. A finding that is not borne is a complaint, and so is one that is borne and not there: the
/// list would hide the next one.
pub(super) fn score(
    kube_score: &Program,
    set: &str,
    version: &str,
    manifests: &str,
) -> Result<Score, Failure> {
    // `v1.36`, without the patch.
    let version = version.rsplit_once('.').map_or(version, |(version, _)| version);
    let mut command = Command::new(kube_score.path());
    command.args([
        "score",
        "--output-format",
        "json",
        "--kubernetes-version",
        version,
        "-",
    ]);
    let output = ask(&mut command, manifests.to_owned())?;
    let objects: Vec<Scored> = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("kube-score's answer cannot be read: {error}")))?;
    let borne: Vec<&Borne> = BORNE.iter().filter(|borne| borne.sets.contains(&set)).collect();
    let mut there = Vec::new();
    let mut score = Score {
        passed: 0,
        accepted: 0,
        complaints: Vec::new(),
    };
    for object in &objects {
        for checked in object.checks.iter().filter(|checked| !checked.skipped) {
            let id = checked.check.id.as_str();
            if checked.grade >= FINE {
                score.passed += 1;
            } else if borne.iter().any(|borne| borne.check == id) {
                score.accepted += 1;
                there.push(id);
            } else {
                score.complaints.push(complaint(object, checked));
            }
        }
    }
    if score.passed == 0 {
        score.complaints.push("kube-score checked nothing".to_owned());
    }
    let gone = borne.iter().filter(|borne| !there.contains(&borne.check));
    score.complaints.extend(gone.map(|borne| {
        format!(
            "kube-score finds nothing of {} any more, which was borne because {}: take it off the list",
            borne.check, borne.why
        )
    }));
    Ok(score)
}

fn complaint(object: &Scored, checked: &Checked) -> String {
    let comments = checked.comments.iter().flatten();
    let comments: Vec<String> = comments
        .map(|comment| format!("{} {}", comment.path, comment.summary))
        .collect();
    format!(
        "kube-score: {}: {}: {}",
        object.object_name,
        checked.check.id,
        comments.join("; ")
    )
}
