//! A delivery as it is on the wire: request line, headers, an empty line, the body. Lenient where captures differ
//! (line ends, HTTP versions), strict where a guess could change what was signed.

use std::fmt;

/// Most bytes that are read of a delivery: far above what any upstream sends.
pub const MAX_BYTES: u64 = 32 << 20;

/// What is judged of a delivery.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Names as they were written, values without blanks around them, in order.
    pub headers: Vec<(String, String)>,
    /// The raw body.
    pub body: Vec<u8>,
    /// Bytes behind the body that `Content-Length` does not count; they were left out.
    pub surplus_bytes: usize,
}

/// Why a text is no delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Nothing at all.
    #[error(
        "nothing to read; give the request on standard input: request line, headers, an empty line, the body"
    )]
    Empty,
    /// The first line is something else.
    #[error("the first line is no request line; it has to be like `POST /path HTTP/1.1`")]
    RequestLine,
    /// A line among the headers that has not the form of one. The number counts from 1.
    #[error("line {0} is no header (`Name: value`); an empty line has to stand between headers and body")]
    Header(usize),
    /// The input ends among the headers.
    #[error("no empty line ends the headers; give the body too, as raw bytes")]
    NoEnd,
    /// The body is in chunks.
    #[error("the body is in chunks (Transfer-Encoding); put it together and leave that header out")]
    Chunked,
    /// The length is no number, or more was announced than is there.
    #[error(
        "Content-Length and body do not agree: {announced:?} announced, {there} bytes there; the capture is cut off or changed"
    )]
    Length {
        /// The value of the header.
        announced: String,
        /// Bytes that are there.
        there: usize,
    },
}

impl Delivery {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// What is no request, with the cure.
    pub fn read(raw: &[u8]) -> Result<Self, Unreadable> {
        if raw.iter().all(u8::is_ascii_whitespace) {
            return Err(Unreadable::Empty);
        }
        let (line, mut rest) = split_line(raw).ok_or(Unreadable::RequestLine)?;
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split(' ').collect();
        if !matches!(words.as_slice(), [_, _, version] if version.starts_with("HTTP/")) {
            return Err(Unreadable::RequestLine);
        }
        let mut delivery = Self::default();
        for number in 2.. {
            let (line, after) = split_line(rest).ok_or(Unreadable::NoEnd)?;
            rest = after;
            if line.is_empty() {
                break;
            }
            let line = String::from_utf8_lossy(line);
            let (name, value) = line.split_once(':').ok_or(Unreadable::Header(number))?;
            if name.is_empty() || !name.chars().all(is_token) {
                return Err(Unreadable::Header(number));
            }
            delivery.headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if delivery
            .header("Transfer-Encoding")
            .is_some_and(|value| !value.eq_ignore_ascii_case("identity"))
        {
            return Err(Unreadable::Chunked);
        }
        delivery.take_body(rest)?;
        Ok(delivery)
    }

    fn take_body(&mut self, rest: &[u8]) -> Result<(), Unreadable> {
        let body = match self.header("Content-Length") {
            None => rest,
            Some(announced) => announced
                .parse()
                .ok()
                .and_then(|length| rest.get(..length))
                .ok_or_else(|| Unreadable::Length {
                    announced: announced.to_owned(),
                    there: rest.len(),
                })?,
        };
        self.surplus_bytes = rest.len() - body.len();
        self.body = body.to_vec();
        Ok(())
    }

    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every header of this name.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Delivery {
    /// Without values and body, which may be credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Delivery")
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A character of a header's name (RFC 9110).
fn is_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char)
}

/// The first line without its end, and what follows. `None`: no line end.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let line = text.get(..end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_both_line_ends_and_keeps_the_body_as_it_is() {
        for end in ["\r\n", "\n"] {
            let raw = ["POST /a HTTP/2", "HOST:x", "X-One:  1 ", "", "a\r\nb\n"].join(end);
            let delivery = Delivery::read(raw.as_bytes()).unwrap();
            assert_eq!(delivery.header("x-one"), Some("1"));
            assert_eq!(delivery.header("host"), Some("x"));
            assert_eq!(delivery.body, b"a\r\nb\n");
        }
    }

    #[test]
    fn content_length_ends_the_body() {
        let delivery = Delivery::read(b"POST / HTTP/1.1\ncontent-length: 2\n\nab\n").unwrap();
        assert_eq!(
            (delivery.body.as_slice(), delivery.surplus_bytes),
            (&b"ab"[..], 1)
        );
    }

    #[test]
    fn says_what_is_no_request() {
        for (raw, expected) in [
            ("", Unreadable::Empty),
            (" \n", Unreadable::Empty),
            ("{\"id\":1}", Unreadable::RequestLine),
            ("HTTP/1.1 200 OK\n\n", Unreadable::RequestLine),
            ("POST / HTTP/1.1\nA: b", Unreadable::NoEnd),
            ("POST / HTTP/1.1\nA: b\n{\"id\":1}\n", Unreadable::Header(3)),
            ("POST / HTTP/1.1\nA: b\nbody\n\n", Unreadable::Header(3)),
            (
                "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n0\n\n",
                Unreadable::Chunked,
            ),
        ] {
            assert_eq!(Delivery::read(raw.as_bytes()), Err(expected), "{raw:?}");
        }
        for length in ["3", "-1", "x", "99999999999999999999"] {
            let raw = format!("POST / HTTP/1.1\nContent-Length: {length}\n\nab");
            let announced = length.to_owned();
            assert_eq!(
                Delivery::read(raw.as_bytes()),
                Err(Unreadable::Length { announced, there: 2 })
            );
        }
    }
}
