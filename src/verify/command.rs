//! The command line of `verify`: reads secrets and the delivery, prints the verdict.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::{
    Candidate, Scheme, Terms, judge,
    request::{Delivery, MAX_BYTES},
};
use crate::{
    api::provider::{ProviderType, SignatureEncoding},
    cli::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE},
    net::SecretText,
};

/// Longest secret that is read; the longest that any upstream takes has 256 characters.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// The options of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The upstream that made the delivery
    #[arg(long, value_name = "TYPE", value_parser = crate::cli::provider_type)]
    provider: ProviderType,

    /// A file with the secret as it is mounted from the Secret; may be given several times
    ///
    /// During a rotation these are the files `<key>`, `<key>.next` and `<key>.previous`. For Thulium it holds the
    /// password of the Basic authentication, for Conpeek the value of --header: these two sign nothing.
    #[arg(long, required = true, value_name = "FILE")]
    secret_file: Vec<PathBuf>,

    /// How old a signature may be: ricloud, Autocosmos
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::cli::duration)]
    tolerance: Duration,

    /// Judge the age as at this time (2006-01-02T15:04:05Z, or seconds since 1970), for a delivery that was kept
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,

    /// What stands between the signed values: Autocosmos. Without it every known one is tried
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    separator: Option<String>,

    /// How the signature is written: Autocosmos. Without it both ways are tried
    #[arg(long, value_enum, value_name = "base64|hex")]
    encoding: Option<Encoding>,

    /// The user of the Basic authentication: Thulium
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// The header that shows the origin: Conpeek
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
}

/// How a signature is written, as a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoding {
    Base64,
    Hex,
}

impl From<Encoding> for SignatureEncoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Base64 => Self::Base64,
            Encoding::Hex => Self::Hex,
        }
    }
}

impl VerifyArgs {
    /// What is looked at, from the options that belong to the upstream.
    fn scheme(&self) -> Result<Scheme, String> {
        let kind = self.provider.as_str();
        for (given, option, of) in [
            (self.separator.is_some(), "--separator", ProviderType::Autocosmos),
            (self.encoding.is_some(), "--encoding", ProviderType::Autocosmos),
            (self.username.is_some(), "--username", ProviderType::Thulium),
            (self.header.is_some(), "--header", ProviderType::Conpeek),
        ] {
            if given && of != self.provider {
                return Err(format!(
                    "{option} is for {}, not for {kind}; leave it out",
                    of.as_str()
                ));
            }
        }
        let needed = |value: &Option<String>, what: &str| {
            value
                .clone()
                .ok_or_else(|| format!("{kind} does not sign what it delivers; give {what}"))
        };
        Ok(match self.provider {
            ProviderType::Ricloud => Scheme::Ricloud,
            ProviderType::Autocosmos => Scheme::Autocosmos {
                separator: self.separator.clone(),
                encoding: self.encoding.map(SignatureEncoding::from),
            },
            ProviderType::Thulium => Scheme::Basic {
                username: needed(
                    &self.username,
                    "the user of its Basic authentication with --username",
                )?,
            },
            ProviderType::Conpeek => Scheme::Header {
                name: needed(
                    &self.header,
                    "the header that shows the origin with --header, its value in --secret-file",
                )?,
            },
        })
    }
}

/// Judges the delivery on `stdin` at `now`; returns the exit code: 0 valid, 1 invalid, 2 not to be judged.
pub fn run(
    args: &VerifyArgs,
    now: Timestamp,
    stdin: impl Read,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    match verdict(args, now, stdin) {
        Ok((code, text)) => match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => EXIT_USAGE,
            _ => code,
        },
        Err(problem) => {
            // Nothing can be done about a closed terminal.
            let _ = writeln!(err, "error: {problem}");
            EXIT_USAGE
        }
    }
}

fn verdict(args: &VerifyArgs, now: Timestamp, stdin: impl Read) -> Result<(u8, String), String> {
    let terms = Terms {
        scheme: args.scheme()?,
        tolerance: args.tolerance,
        now: args.at.unwrap_or(now),
    };
    let candidates: Vec<Candidate> = args
        .secret_file
        .iter()
        .map(|path| candidate(path))
        .collect::<Result<_, _>>()?;
    let raw = bounded(stdin, MAX_BYTES).map_err(|error| format!("standard input: {error}"))?;
    let delivery = Delivery::read(&raw).map_err(|problem| format!("standard input: {problem}"))?;
    let (code, mut lines) = match judge(&delivery, &candidates, &terms) {
        Ok(valid) => {
            let notes = valid.notes.into_iter().map(|note| format!("note: {note}"));
            (
                EXIT_OK,
                [format!("valid: {}", valid.what)]
                    .into_iter()
                    .chain(notes)
                    .collect::<Vec<_>>(),
            )
        }
        Err(invalid) => {
            let hints = invalid.hints.into_iter().map(|hint| format!("hint: {hint}"));
            (
                EXIT_FAILURE,
                [format!("invalid: {}", invalid.what)]
                    .into_iter()
                    .chain(hints)
                    .collect(),
            )
        }
    };
    if delivery.surplus_bytes > 0 {
        lines.push(format!(
            "note: {} bytes behind the end of the body (Content-Length) were left out",
            delivery.surplus_bytes
        ));
    }
    Ok((code, lines.join("\n") + "\n"))
}

fn candidate(path: &Path) -> Result<Candidate, String> {
    let name = path.display().to_string();
    let bytes = File::open(path)
        .and_then(|file| bounded(file, MAX_SECRET_BYTES))
        .map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        format!("{name}: not UTF-8 text, which a signing secret always is; is it the right file?")
    })?;
    if text.trim().is_empty() {
        return Err(format!("{name}: empty; put the secret into it"));
    }
    Ok(Candidate {
        name,
        secret: SecretText::from(text),
    })
}

fn bounded(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(seconds) = text.parse() {
        return Timestamp::from_second(seconds).map_err(|error| error.to_string());
    }
    text.parse()
        .map_err(|_| "a time like 2006-01-02T15:04:05Z, or seconds since 1970".to_owned())
}
