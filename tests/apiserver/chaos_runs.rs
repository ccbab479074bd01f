//! `cargo xtask chaos` in small: what it does for minutes with a thousand Webhooks, here with a few dozen for seconds.
//!
//! The run itself, with its users, faults and judge, is the crate `chaos`; here are its processes.

use std::{path::Path, sync::Arc, time::Duration};

use chaos::{
    Error, Life, Stage,
    amnesia::{self, Loss},
    judge::Finding,
    storm, user,
    vitals::Vitals,
};
use control_plane::Server;
use upstream_doubles::Doubles;

use crate::{
    harness::{Cluster, cluster},
    identity::Identity,
    operator::Operator,
};

/// The apiserver is away this long.
const AWAY: Duration = Duration::from_secs(1);

struct Processes<'a> {
    operator: Arc<Operator>,
    /// `None`: shared with other tests, its servers are left alone.
    own: Option<&'a Cluster>,
}

impl Stage for Processes<'_> {
    async fn start(&self) -> Result<(), Error> {
        self.operator.launch();
        Ok(())
    }

    async fn kill(&self) -> Result<Life, Error> {
        if let Some(status) = self.operator.ended() {
            return Err(Error::Stage(format!(
                "the operator ended by itself with {status}"
            )));
        }
        let worked = self.operator.works();
        self.operator.kill();
        Ok(Life { peak_kib: 0, worked })
    }

    async fn working(&self) -> Result<(), Error> {
        self.operator.wait_until_working().await;
        Ok(())
    }

    async fn vitals(&self) -> Result<Vitals, Error> {
        Vitals::of(self.operator.process_id(), &self.operator.metrics().await)
    }

    async fn restart_apiserver(&self, crash: bool) -> Result<(), Error> {
        let failed = |error: control_plane::Error| Error::Stage(error.to_string());
        let plane = self.own.expect("a control plane of its own").plane();
        if crash {
            plane.kill_server(Server::Apiserver).await.map_err(failed)?;
        } else {
            plane.stop_apiserver().await.map_err(failed)?;
        }
        tokio::time::sleep(AWAY).await;
        plane.start_apiserver().await.map_err(failed)
    }

    fn tell(&self, text: &str) {
        eprintln!("{text}");
    }
}

fn told(findings: &[Finding], log: &Path) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    format!("{}\nlog: {}", lines.join("\n"), log.display())
}

/// Kills every 0.2 to 2 s, a fault for every fifth request, users who change their minds, an apiserver that crashes:
/// in the end every Webhook has its one registration, and nothing is left when all are deleted.
#[tokio::test]
async fn nothing_is_lost_or_doubled_by_kills_and_faults() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    let doubles = Doubles::start(user::options(Duration::from_millis(5)))
        .await
        .expect("start the doubles");
    let identity = Identity::of_the_cluster(&cluster).await;
    let operator = Operator::unstarted(&identity, &["--log-filter", "info"]);
    operator.launch();
    let processes = Processes {
        operator: Arc::clone(&operator),
        own: Some(&cluster),
    };
    let plan = storm::Plan {
        seed: 20_261_122,
        webhooks: 60,
        namespace: "chaos".to_owned(),
        storm: Duration::from_secs(10),
        kills: 9,
        long_life: Duration::from_secs(2),
        deleting: Duration::from_secs(2),
        faults: 0.2,
        apiserver_restarts: 1,
        pause: Duration::from_millis(50),
        // What was cut off in the middle of a create is looked at for 30 s longer than a call may take.
        timeout: Duration::from_secs(1),
        limit: Duration::from_secs(120),
        window: Duration::from_secs(3),
    };
    let report = Box::pin(storm::run(&processes, client, &doubles, &plan))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", operator.log_tail("")));
    assert!(
        report.findings.is_empty(),
        "{}",
        told(&report.findings, operator.log_path())
    );
    // Or it would have shown nothing. A machine with much else to do comes to half of what one with nothing else does.
    assert!(report.kills >= 9 && report.lives_that_worked >= 3, "{report:?}");
    assert_eq!(report.apiserver_restarts, 1);
    assert!(report.faults_total >= 8, "{report:?}");
    assert!(report.wanted >= 30 && report.deeds >= 40, "{report:?}");
    assert!(report.creates_per_webhook <= 1.2, "{report:?}");
}

/// Whatever was written down and is lost, from the status to the objects themselves: everything is found again at
/// the upstream, with no create and no removal.
#[tokio::test]
async fn what_is_forgotten_is_found_again() {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let namespace = cluster.namespace(&client, "amnesia").await;
    let doubles = Doubles::start(user::options(Duration::ZERO))
        .await
        .expect("start the doubles");
    let own = cluster.namespace(&client, "operator").await;
    let identity = Identity::confined(cluster, &own, &namespace).await;
    let args = ["--namespace", &namespace, "--lease-namespace", &own];
    let operator = Operator::start(&identity, &args).await;
    let processes = Processes {
        operator: Arc::clone(&operator),
        own: None,
    };
    let plan = amnesia::Plan {
        seed: 20_261_122,
        webhooks: 24,
        operator_namespace: own,
        namespace,
        timeout: Duration::from_secs(5),
        limit: Duration::from_secs(60),
    };
    let report = Box::pin(amnesia::run(&processes, client, &doubles, &plan, &Loss::ALL))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", operator.log_tail("")));
    assert!(
        report.findings.is_empty(),
        "{}",
        told(&report.findings, operator.log_path())
    );
    // Eight losses before a start, four of them while the operator worked as well.
    assert_eq!(report.outcomes.len(), 12, "{report:?}");
}
