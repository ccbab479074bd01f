//! What hostile upstreams can make the operator hold, as the kernel measures it.

use std::{
    io::Write,
    process::ExitStatus,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use webhook_operator::api::{
    conditions::ReadyReason,
    provider::ProviderType::{self, Autocosmos, Conpeek, Ricloud, Thulium},
};

use crate::world::{World, name_of, webhook_manifest};

/// Webhooks at each of the hostile upstreams. More of them keep the machine from the tests beside this one.
const EACH: usize = 1;

/// How many answers each of them has to have given.
const ANSWERS: u64 = 1;

/// Longest wait for that.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the operator may have resident at any time, in KiB: the limit of the chart.
const MOST: u64 = 256 * 1024;

/// What an upstream answers to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// One MiB, which is one GiB when it is unpacked.
    Bomb,
    /// A body without an end.
    Endless,
    /// A list of the smallest entries that there can be, many more than a list may have.
    Entries,
    /// A list that is just as long as it may be, in entries and in bytes.
    Longest,
    /// Pages of long entries, each as long as a page can be, without an end.
    Pages,
}

const ANSWER: [Answer; 5] = [
    Answer::Bomb,
    Answer::Endless,
    Answer::Entries,
    Answer::Longest,
    Answer::Pages,
];

/// A gzip stream of many members: each is 16 MiB of spaces.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![b' '; 16 << 20]).expect("pack");
        encoder.finish().expect("pack").repeat(64)
    })
}

/// So many entries of a list, in the words of an upstream.
fn entries(provider: ProviderType, numbers: std::ops::Range<usize>, padding: usize) -> String {
    let path = "x".repeat(padding);
    let entry = |number: usize| match provider {
        Ricloud => format!(r#"{{"id":{number},"url":"{path}"}}"#),
        _ => format!(r#"{{"id":{number},"actions":[],"subscription_url":"{path}"}}"#),
    };
    let entries: Vec<String> = numbers.map(entry).collect();
    let (list, more) = (entries.join(","), entries.len() == 1000);
    match provider {
        Ricloud => format!(r#"{{"data":[{list}],"has_more":{more}}}"#),
        _ => format!("[{list}]"),
    }
}

/// One hostile upstream, and how many answers and bytes of them it has sent.
struct Hostile {
    answer: Answer,
    provider: ProviderType,
    port: u16,
    answers: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Hostile {
    async fn start(answer: Answer, provider: ProviderType) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let (answers, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counters = (Arc::clone(&answers), Arc::clone(&bytes));
        let short = match answer {
            Answer::Entries => entries(provider, 0..600_000, 0),
            Answer::Longest => entries(provider, 0..19_999, 350),
            Answer::Pages => entries(provider, 0..100, 0),
            Answer::Bomb | Answer::Endless => String::new(),
        };
        let short: Arc<str> = short.into();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let ((answers, bytes), short) = (counters.clone(), Arc::clone(&short));
                tokio::spawn(async move {
                    let sent = serve(stream, answer, provider, &short, &bytes).await;
                    answers.fetch_add(u64::from(sent.is_some()), Ordering::Relaxed);
                });
            }
        });
        Self {
            answer,
            provider,
            port,
            answers,
            bytes,
        }
    }

    fn name(&self) -> String {
        format!("{}-{:?}", name_of(self.provider), self.answer).to_lowercase()
    }
}

/// Reads one request and answers it; `None`: there was none. The caller hangs up when it has had enough.
async fn serve(
    mut stream: TcpStream,
    answer: Answer,
    provider: ProviderType,
    short: &str,
    bytes: &AtomicU64,
) -> Option<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read_buf(&mut request).await.ok()?;
        (read > 0).then_some(())?;
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let mut send = async |piece: &[u8]| {
        let sent = stream.write_all(piece).await;
        bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        sent
    };
    // An error: the caller has hung up, as it should.
    match answer {
        Answer::Bomb => {
            let _ = send(format!("{head}Content-Encoding: gzip\r\n\r\n").as_bytes()).await;
            let _ = send(bomb()).await;
        }
        Answer::Endless => {
            let _ = send(format!("{head}\r\n[").as_bytes()).await;
            while send(&[b' '; 1 << 16]).await.is_ok() {}
        }
        Answer::Entries | Answer::Longest => {
            let _ = send(format!("{head}\r\n{short}").as_bytes()).await;
        }
        Answer::Pages => {
            let page = page(&request, provider).unwrap_or_else(|| short.to_owned());
            let _ = send(format!("{head}\r\n{page}").as_bytes()).await;
        }
    }
    Some(())
}

/// A full page of entries of a kilobyte that no page before had. `None`: pages are not asked for.
fn page(request: &str, provider: ProviderType) -> Option<String> {
    let path = request.split(' ').nth(1)?;
    let from = |name: &str| -> Option<usize> {
        let (_, rest) = path.split_once(name)?;
        rest.split('&').next()?.parse().ok()
    };
    let first = match provider {
        Ricloud => from("after_id=").map_or(0, |last| last + 1),
        _ => from("offset=")?,
    };
    Some(entries(provider, first..first + 1000, 1024))
}

/// The most that was resident at any time.
const PEAK: &str = "VmHWM:";

/// A figure of a process's memory, in KiB.
fn kib(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    figure.expect("a figure")
}

/// An operator of its own, with an account at each upstream and a Webhook that is Ready.
async fn world(name: &str) -> World {
    let world = World::alone(name, &["--log-filter", "info"]).await;
    for provider in [Conpeek, Thulium, Ricloud, Autocosmos] {
        world.provider(provider).await;
    }
    let spec = json!({ "url": "https://a.example/before", "events": ["TICKET_CREATED"] });
    world.webhook("before", Thulium, spec).await;
    world.wait_ready("before", ReadyReason::Available).await;
    world
}

/// Adds what the upstream needs beside a URL.
fn need(manifest: &mut serde_json::Value, provider: ProviderType, number: usize) {
    match provider {
        Conpeek => manifest["spec"]["target"] = json!((number + 1).to_string()),
        Autocosmos => manifest["spec"]["target"] = json!(format!("topic-{number}")),
        Thulium => manifest["spec"]["events"] = json!(["TICKET_CREATED"]),
        Ricloud => {}
    }
}

/// Bombs, endless bodies, lists of hundreds of thousands of entries and lists without an end, at upstreams of all types
/// and for many Webhooks at once: what is resident stays bounded, and the Webhooks of the others come and go as ever.
#[tokio::test]
async fn hostile_answers_fit_into_the_memory_that_the_chart_allows() {
    let world = world("memory").await;
    let process = world.operator.process_id();
    let before = kib(process, PEAK);

    let mut hostile = Vec::new();
    for answer in ANSWER {
        for provider in [Conpeek, Thulium, Ricloud, Autocosmos] {
            let lists = matches!(answer, Answer::Entries | Answer::Longest | Answer::Pages);
            // The other two upstreams have no lists.
            if !lists || matches!(provider, Thulium | Ricloud) {
                hostile.push(Hostile::start(answer, provider).await);
            }
        }
    }
    for (number, upstream) in hostile.iter().enumerate() {
        let mut manifest = world.provider_manifest(upstream.provider);
        manifest["metadata"]["name"] = json!(upstream.name());
        manifest["spec"]["baseUrl"] = json!(format!("http://127.0.0.1:{}/api", upstream.port));
        world.apply(&manifest).await;
        for place in 0..EACH {
            let spec = json!({
                "providerRef": { "name": upstream.name() },
                "url": format!("https://a.example/{number}/{place}"),
                "test": { "mode": "None" },
            });
            let mut manifest =
                webhook_manifest(&format!("{}-{place}", upstream.name()), upstream.provider, spec);
            need(&mut manifest, upstream.provider, place);
            world.apply(&manifest).await;
        }
    }
    let began = Instant::now();
    while hostile
        .iter()
        .any(|it| it.answers.load(Ordering::Relaxed) < ANSWERS)
    {
        let told: Vec<String> = hostile
            .iter()
            .map(|it| format!("{}: {}", it.name(), it.answers.load(Ordering::Relaxed)))
            .collect();
        assert!(began.elapsed() < PATIENCE, "answers until now: {told:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nobody else waits for any of that.
    world
        .webhook(
            "meanwhile",
            Conpeek,
            json!({ "target": "7", "url": "https://a.example/meanwhile" }),
        )
        .await;
    world.wait_ready("meanwhile", ReadyReason::Available).await;
    world.delete_and_wait("before").await;

    let after = kib(process, PEAK);
    let sent: u64 = hostile.iter().map(|it| it.bytes.load(Ordering::Relaxed)).sum();
    let told = format!(
        "at most {after} KiB resident, {before} before; {} MiB were sent",
        sent >> 20
    );
    eprintln!("{told}");
    // Or it would have shown nothing.
    assert!(sent > 100 << 20, "{told}");
    assert!(after < MOST, "{told}");
}

/// The measure sees what a process holds for a moment.
#[test]
fn the_peak_shows_what_was_held_and_given_back() {
    let process = std::process::id();
    let before = kib(process, "VmRSS:");
    let held = vec![1_u8; 128 << 20];
    let held_kib = held.len() as u64 / 1024;
    drop(held);
    let peak = kib(process, PEAK);
    // Other tests of this process may give something back meanwhile.
    assert!(peak >= before + held_kib / 2, "{peak} KiB, {before} before");
}

/// Webhooks of the process that has too little.
const STARVED: usize = 24;

/// What it may have above what it has without any, in KiB; one Webhook below brings more than a tenth of that.
const ROOM: u64 = 1024;

/// How often it is started again with too little.
const LIVES: usize = 1;

/// A process that is refused memory ends in the middle of whatever it does, as one that the kernel ends at the limit of
/// its container; so does the next one, as in a crash loop. The first that has enough finds everything.
#[tokio::test]
async fn who_runs_out_of_memory_is_followed_by_one_that_finds_everything() {
    let world = world("starved").await;
    let enough = kib(world.operator.process_id(), "VmData:");
    world.operator.kill();
    world.operator.launch_within(enough + ROOM);
    world.operator.wait_until_working().await;
    let names: Vec<String> = (0..STARVED).map(|number| format!("w-{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let provider = [Conpeek, Thulium, Ricloud, Autocosmos][number % 4];
        let mut manifest = webhook_manifest(name, provider, json!({ "test": { "mode": "None" } }));
        manifest["spec"]["url"] = json!(format!("https://a.example/{number}"));
        manifest["metadata"]["annotations"] = json!({ "filler.example/text": "x".repeat(128 << 10) });
        need(&mut manifest, provider, number);
        world.apply(&manifest).await;
    }
    for life in 0..LIVES {
        let ended = wait_for_the_end(&world).await;
        assert!(!ended.success(), "life {life}: {ended}");
        world.operator.kill();
        world.operator.launch_within(enough + ROOM);
    }
    wait_for_the_end(&world).await;
    world.operator.kill();
    world.operator.go().await;
    for name in &names {
        world.wait_ready(name, ReadyReason::Available).await;
    }
    let doubles = &world.doubles;
    let on = |it: &upstream_doubles::AppWebhook| it.activo;
    let registered = [
        doubles.conpeek().objects().len(),
        // And the one before.
        doubles.thulium().objects().len() - 1,
        doubles.ricloud().objects().len(),
        doubles.autocosmos().objects().iter().filter(|it| on(it)).count(),
    ];
    assert_eq!(registered, [STARVED / 4; 4]);
    let twice = [doubles.thulium().duplicates(), doubles.ricloud().duplicates()].concat();
    assert!(twice.is_empty(), "{twice:?}");
}

/// How the process ended by itself.
async fn wait_for_the_end(world: &World) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = world.operator.ended() {
            return status;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "it has enough:\n{}",
            world.operator.log_tail("")
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
