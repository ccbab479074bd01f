//! Trouble with the connection itself, over real sockets and the real transport: nothing comes, or too slowly, too
//! much, in pieces, or something that is not HTTP.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use futures::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use webhook_operator::{
    clock::Clock,
    net::{AddressPolicy, HttpClient},
};

use super::{
    calls::{Case, account, make, outcome},
    model::{Model, Route},
};

/// What a call may take where the trouble is that it never ends.
const SHORT: Duration = Duration::from_secs(2);

/// What it may take otherwise; never reached.
const LONG: Duration = Duration::from_secs(30);

/// How many calls are made at the same time.
const AT_ONCE: usize = 128;

/// How a connection goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Refused,
    NoHandshake,
    NoTls,
    Closed,
    Reset,
    Silent,
    HeadDrips,
    BodySilent,
    BodyDrips,
    CutOff,
    CutOffInChunk,
    LargeAnnounced,
    Endless,
    GzipBomb,
    BrokenGzip,
    NotHttp,
    EndlessHead,
}

use Trouble::{
    BodyDrips, BodySilent, BrokenGzip, Closed, CutOff, CutOffInChunk, Endless, EndlessHead, GzipBomb,
    HeadDrips, LargeAnnounced, NoHandshake, NoTls, NotHttp, Refused, Reset, Silent,
};

/// In the order of the table, with their names there.
const ALL: [(Trouble, &str); 17] = [
    (Refused, "refused"),
    (NoHandshake, "accepted, and no TLS handshake"),
    (NoTls, "HTTP where TLS should be"),
    (Closed, "closed without an answer"),
    (Reset, "reset without an answer"),
    (Silent, "no answer"),
    (HeadDrips, "head byte by byte"),
    (BodySilent, "no body after the head"),
    (BodyDrips, "body byte by byte"),
    (CutOff, "body cut off"),
    (CutOffInChunk, "body cut off in a chunk"),
    (LargeAnnounced, "body too large, as announced"),
    (Endless, "body without end"),
    (GzipBomb, "gzip bomb"),
    (BrokenGzip, "broken gzip"),
    (NotHttp, "not HTTP"),
    (EndlessHead, "head without end"),
];

impl Trouble {
    /// It meets whichever request comes first.
    fn is_of_connecting(self) -> bool {
        matches!(self, Refused | NoHandshake | NoTls)
    }

    /// What comes of it by the rule, for a request that changes something.
    fn rule(self) -> &'static str {
        match self {
            NoHandshake => "**timeout**",
            Silent | HeadDrips | BodySilent | BodyDrips => "**timeout?**",
            Refused | NoTls => "**unreachable**",
            Closed | Reset | CutOff | CutOffInChunk => "**unreachable?**",
            LargeAnnounced | Endless | GzipBomb | BrokenGzip | NotHttp | EndlessHead => "**unexpected?**",
        }
    }

    /// It ends only by the time limit of the call.
    fn lasts(self) -> bool {
        matches!(self, NoHandshake | Silent | HeadDrips | BodySilent | BodyDrips)
    }
}

/// What comes of each by the rule, for a request that changes something.
pub(super) fn rules() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().map(|(trouble, name)| (*name, trouble.rule()))
}

/// One upstream on a socket of its own.
struct Server {
    model: Mutex<Model>,
    trouble: (Route, Trouble),
    armed: AtomicBool,
}

impl Server {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let server = Arc::clone(&self);
            tokio::spawn(async move { server.answer(stream).await });
        }
    }

    async fn answer(&self, mut stream: TcpStream) {
        let (route, trouble) = &self.trouble;
        if self.armed.load(Ordering::SeqCst) && trouble.is_of_connecting() {
            if *trouble == NoTls {
                let _ = stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    .await;
            } else {
                wait_for_the_end(&mut stream).await;
            }
            return;
        }
        let Some((asked, body)) = read_request(&mut stream).await else {
            return;
        };
        if asked == *route && self.armed.load(Ordering::SeqCst) {
            let good = self
                .model
                .lock()
                .unwrap()
                .answer(&asked, body.as_bytes())
                .1
                .to_string();
            misbehave(&mut stream, *trouble, &good).await;
            return;
        }
        let (status, body) = self.model.lock().unwrap().answer(&asked, body.as_bytes());
        let answer = format!(
            "{}{body}",
            head(status, &format!("Content-Length: {}", body.to_string().len()))
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

fn head(status: u16, header: &str) -> String {
    format!(
        "HTTP/1.1 {status} Any\r\nContent-Type: application/json\r\nConnection: close\r\n{header}\r\n\r\n"
    )
}

/// Sends the client's next byte to nobody; ends when it hangs up.
async fn wait_for_the_end(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// Reads one request and its body.
async fn read_request(stream: &mut TcpStream) -> Option<(Route, String)> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = String::from_utf8_lossy(&seen).split_once("\r\n\r\n") {
            let length = |line: &str| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(str::to_owned)
            };
            let length: usize = head
                .lines()
                .find_map(length)
                .map_or(0, |value| value.trim().parse().unwrap());
            if body.len() >= length {
                let mut words = head.split(' ');
                return Some((Route::new(words.next()?, words.next()?), body.to_owned()));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => seen.extend_from_slice(&buffer[..read]),
        }
    }
}

/// Larger than any answer may be, once it is unpacked.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mebibyte = vec![b' '; 1 << 20];
    for _ in 0..40 {
        encoder.write_all(&mebibyte).unwrap();
    }
    encoder.finish().unwrap()
});

async fn drip(stream: &mut TcpStream, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn misbehave(stream: &mut TcpStream, trouble: Trouble, good: &str) {
    let length = format!("Content-Length: {}", good.len());
    let whole = format!("{}{good}", head(200, &length));
    // Whoever has heard enough hangs up; that is no trouble of the test.
    let mut say = async |bytes: &[u8]| stream.write_all(bytes).await.is_ok();
    match trouble {
        Refused | NoHandshake | NoTls | Closed => {}
        Reset => stream.set_zero_linger().unwrap(),
        Silent => wait_for_the_end(stream).await,
        HeadDrips => drip(stream, whole.bytes().take(20).chain(std::iter::repeat(b'x'))).await,
        BodySilent => {
            say(head(200, &length).as_bytes()).await;
            wait_for_the_end(stream).await;
        }
        BodyDrips => {
            say(head(200, "Content-Length: 100000").as_bytes()).await;
            drip(stream, std::iter::repeat(b' ')).await;
        }
        CutOff => {
            say(whole
                .get(..whole.len() - good.len() / 2)
                .unwrap_or(&whole)
                .as_bytes())
            .await;
        }
        CutOffInChunk => {
            say(head(200, "Transfer-Encoding: chunked").as_bytes()).await;
            say(format!("{:x}\r\n{}", good.len() + 10, good).as_bytes()).await;
        }
        LargeAnnounced => {
            say(head(200, "Content-Length: 1073741824").as_bytes()).await;
            wait_for_the_end(stream).await;
        }
        Endless => {
            let blanks = vec![b' '; 1 << 16];
            let mut going = say(head(200, "X-Endless: yes").as_bytes()).await;
            while going {
                going = say(&blanks).await;
            }
        }
        GzipBomb => {
            let header = format!("Content-Encoding: gzip\r\nContent-Length: {}", BOMB.len());
            say(head(200, &header).as_bytes()).await;
            say(&BOMB).await;
        }
        BrokenGzip => {
            let header = format!("Content-Encoding: gzip\r\n{length}");
            say(format!("{}{good}", head(200, &header)).as_bytes()).await;
        }
        NotHttp => {
            say(b"220 mail.example ESMTP kr0kodil\r\n").await;
        }
        EndlessHead => {
            let mut going = say(b"HTTP/1.1 200 OK\r\n").await;
            while going {
                going = say(b"X-More: kr0kodil kr0kodil kr0kodil kr0kodil kr0kodil kr0kodil\r\n").await;
            }
        }
    }
}

/// A server that answers each request with what it was sent, head and body; its base URL.
pub(super) async fn mirror() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1 << 16];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let echo = String::from_utf8_lossy(&request[..read]).replace(['\r', '\n'], " ");
            let answer = head(200, &format!("X-Echo: {echo}\r\nContent-Length: {}", echo.len()));
            let _ = stream.write_all(format!("{answer}{echo}").as_bytes()).await;
        }
    });
    format!("http://{address}")
}

/// What comes of the call, and how long it took.
async fn outcome_of(case: Case, route: &Route, trouble: Trouble, client: &HttpClient) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let server = Arc::new(Server {
        model: Mutex::new(Model::new(case.kind)),
        trouble: (route.clone(), trouble),
        armed: AtomicBool::new(false),
    });
    tokio::spawn(Arc::clone(&server).serve(listener));
    let scheme = if matches!(trouble, NoHandshake | NoTls) {
        "https"
    } else {
        "http"
    };
    let connect = |base: &str, timeout| {
        account(
            case.kind,
            base,
            timeout,
            Arc::new(client.clone()),
            Clock::system(),
        )
    };
    let limit = if trouble.lasts() { SHORT } else { LONG };
    let mut account = connect(&format!("http://{address}"), LONG);
    if case.known {
        make(case, &account).await.unwrap();
        *server.model.lock().unwrap() = Model::new(case.kind);
    }
    // A port that nobody listens at, and that nobody else gets meanwhile.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = if trouble == Refused {
        closed.local_addr().unwrap()
    } else {
        address
    };
    account.base = format!("{scheme}://{address}");
    account.timeout = limit;
    server.armed.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let result = make(case, &account).await;
    assert!(
        began.elapsed() < limit * 3 + Duration::from_secs(10),
        "{case:?}, {route}, {trouble:?} took {:?}",
        began.elapsed()
    );
    assert!(
        !format!("{result:?}").contains("kr0kodil"),
        "{case:?}, {route}, {trouble:?}: {result:?}"
    );
    outcome(&result)
}

/// For each request of each call: every trouble by its name, and what came of it.
pub(super) fn outcomes(requests: &[(Case, Route)]) -> Vec<Vec<(&'static str, String)>> {
    // Takes a while, in which nobody else should have to wait.
    LazyLock::force(&BOMB);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let policy = AddressPolicy::parse(["127.0.0.0/8"]).unwrap();
        let client = HttpClient::builder(policy).build().unwrap();
        let mut runs = Vec::new();
        for (at, (case, route)) in requests.iter().enumerate() {
            let is_first = at == 0 || requests[at - 1].0 != *case;
            for (trouble, name) in ALL {
                if is_first || !trouble.is_of_connecting() {
                    runs.push((at, *case, route, trouble, name));
                }
            }
        }
        let made = stream::iter(runs)
            .map(async |(at, case, route, trouble, name)| {
                (at, name, outcome_of(case, route, trouble, &client).await)
            })
            .buffered(AT_ONCE);
        let mut outcomes = vec![Vec::new(); requests.len()];
        let mut made = std::pin::pin!(made);
        while let Some((at, name, outcome)) = made.next().await {
            outcomes[at].push((name, outcome));
        }
        outcomes
    })
}
