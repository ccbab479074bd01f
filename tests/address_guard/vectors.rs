//! The vector list: every range with its edges, every embedded form, every odd spelling.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use webhook_operator::net::{AddressPolicy, AllowListError, CheckedUrl, Refused, UrlProblem};

use super::support::policy;

/// One row per address: its class, or `None` for a public one.
#[rustfmt::skip]
const ADDRESSES: &[(&str, Option<Refused>)] = {
    use Refused::{
        Ipv4Compatible, LinkLocal, Loopback, Metadata, Multicast, Nat64, Private, Reserved, SharedAddress, SixToFour,
        Teredo, UniqueLocal, Unspecified,
    };
    &[
        // IPv4: each range with both edges, and what lies beside it.
        ("0.0.0.0", Some(Unspecified)), ("0.0.0.1", Some(Reserved)), ("0.255.255.255", Some(Reserved)),
        ("1.0.0.0", None), ("9.255.255.255", None),
        ("10.0.0.0", Some(Private)), ("10.255.255.255", Some(Private)), ("11.0.0.0", None),
        ("100.63.255.255", None), ("100.64.0.0", Some(SharedAddress)), ("100.127.255.255", Some(SharedAddress)),
        ("100.128.0.0", None),
        ("126.255.255.255", None), ("127.0.0.0", Some(Loopback)), ("127.0.0.1", Some(Loopback)),
        ("127.255.255.255", Some(Loopback)), ("128.0.0.0", None),
        ("169.253.255.255", None), ("169.254.0.0", Some(LinkLocal)), ("169.254.255.255", Some(LinkLocal)),
        ("169.255.0.0", None),
        ("172.15.255.255", None), ("172.16.0.0", Some(Private)), ("172.31.255.255", Some(Private)),
        ("172.32.0.0", None),
        ("191.255.255.255", None), ("192.0.0.0", Some(Reserved)), ("192.0.0.8", Some(Reserved)),
        ("192.0.0.255", Some(Reserved)), ("192.0.1.0", None),
        ("192.0.2.0", Some(Reserved)), ("192.0.2.255", Some(Reserved)), ("192.0.3.0", None),
        ("192.88.98.255", None), ("192.88.99.0", Some(Reserved)), ("192.88.99.255", Some(Reserved)),
        ("192.88.100.0", None),
        ("192.167.255.255", None), ("192.168.0.0", Some(Private)), ("192.168.255.255", Some(Private)),
        ("192.169.0.0", None),
        ("198.17.255.255", None), ("198.18.0.0", Some(Reserved)), ("198.19.255.255", Some(Reserved)),
        ("198.20.0.0", None),
        ("198.51.99.255", None), ("198.51.100.0", Some(Reserved)), ("198.51.100.255", Some(Reserved)),
        ("198.51.101.0", None),
        ("203.0.112.255", None), ("203.0.113.0", Some(Reserved)), ("203.0.113.255", Some(Reserved)),
        ("203.0.114.0", None),
        ("223.255.255.255", None), ("224.0.0.0", Some(Multicast)), ("239.255.255.255", Some(Multicast)),
        ("240.0.0.0", Some(Reserved)), ("255.255.255.254", Some(Reserved)), ("255.255.255.255", Some(Reserved)),
        ("8.8.8.8", None),
        // Metadata services.
        ("169.254.169.254", Some(Metadata)), ("169.254.169.253", Some(Metadata)), ("169.254.169.123", Some(Metadata)),
        ("169.254.170.2", Some(Metadata)), ("169.254.170.23", Some(Metadata)), ("169.254.0.23", Some(Metadata)),
        ("100.100.100.200", Some(Metadata)), ("168.63.129.16", Some(Metadata)), ("192.0.0.192", Some(Metadata)),
        ("fd00:ec2::254", Some(Metadata)), ("fd00:ec2::253", Some(Metadata)), ("fd00:ec2::123", Some(Metadata)),
        ("fd00:ec2::23", Some(Metadata)), ("fd20:ce::254", Some(Metadata)), ("fe80::a9fe:a9fe", Some(Metadata)),
        ("fd00:a9fe:a9fe::1", Some(Metadata)), ("fd00:42::42", Some(Metadata)),
        ("168.63.129.15", None), ("168.63.129.17", None),
        // IPv6.
        ("::", Some(Unspecified)), ("::1", Some(Loopback)),
        ("::2", Some(Ipv4Compatible)), ("::7f00:1", Some(Ipv4Compatible)), ("::8.8.8.8", Some(Ipv4Compatible)),
        ("::a9fe:a9fe", Some(Metadata)),
        ("::1:0:0:0", Some(Reserved)),
        ("::ffff:127.0.0.1", Some(Loopback)), ("::ffff:10.1.2.3", Some(Private)), ("::ffff:0.0.0.0", Some(Unspecified)),
        ("::ffff:169.254.169.254", Some(Metadata)), ("::ffff:255.255.255.255", Some(Reserved)),
        ("::ffff:8.8.8.8", None),
        ("::ffff:0:127.0.0.1", Some(Reserved)),
        ("64:ff9b::7f00:1", Some(Nat64)), ("64:ff9b::a00:1", Some(Nat64)), ("64:ff9b::a9fe:a9fe", Some(Metadata)),
        ("64:ff9b::a9fe:1", Some(Nat64)), ("64:ff9b::808:808", None), ("64:ff9b:0:1::808:808", Some(Reserved)),
        ("64:ff9b:1::7f00:1", Some(Nat64)), ("64:ff9b:1::808:808", Some(Nat64)),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Some(Nat64)), ("64:ff9b:1::a9fe:a9fe", Some(Metadata)),
        ("64:ff9b:1:a9fe:a9:fe00::", Some(Metadata)), ("64:ff9b:2::", Some(Reserved)),
        ("2002:7f00:1::", Some(SixToFour)), ("2002:c0a8:101::1", Some(SixToFour)), ("2002:a9fe:a9fe::1", Some(Metadata)),
        ("2002:e000:1::", Some(SixToFour)), ("2002:808:808::1", None),
        ("2001::", Some(Teredo)), ("2001::1", Some(Teredo)),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Some(Teredo)), ("2001:0:808:808::f7f7:f7f7", Some(Teredo)),
        ("2001:0:808:808::5601:5601", Some(Metadata)),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Some(Teredo)),
        ("2001:1::1", Some(Reserved)), ("2001:2::1", Some(Reserved)), ("2001:3::1", Some(Reserved)),
        ("2001:10::1", Some(Reserved)), ("2001:1f:ffff::", Some(Reserved)), ("2001:20::1", Some(Reserved)),
        ("2001:2f:ffff::", Some(Reserved)), ("2001:30::1", Some(Reserved)), ("2001:1ff:ffff::", Some(Reserved)),
        ("2001:200::1", None), ("2001:4860:4860::8888", None),
        ("2001:db7:ffff::1", None), ("2001:db8::", Some(Reserved)), ("2001:db8:ffff::1", Some(Reserved)),
        ("2001:db9::1", None),
        ("2000::1", None), ("2606:4700::1111", None), ("2a00:1450:4001::1", None),
        ("3ffe::1", Some(Reserved)), ("3fff::1", Some(Reserved)), ("3fff:fff::1", Some(Reserved)),
        ("3fff:1000::1", None),
        ("1fff::1", Some(Reserved)), ("4000::1", Some(Reserved)), ("5f00::1", Some(Reserved)),
        ("100::1", Some(Reserved)), ("100:0:0:1::1", Some(Reserved)), ("200::1", Some(Reserved)),
        ("fbff::1", Some(Reserved)), ("fc00::", Some(UniqueLocal)), ("fd12:3456::1", Some(UniqueLocal)),
        ("fdff:ffff::1", Some(UniqueLocal)),
        ("fe00::1", Some(Reserved)), ("fe7f::1", Some(Reserved)),
        ("fe80::1", Some(LinkLocal)), ("febf:ffff::1", Some(LinkLocal)),
        ("fec0::1", Some(Reserved)), ("feff::1", Some(Reserved)),
        ("ff00::", Some(Multicast)), ("ff02::1", Some(Multicast)), ("ffff:ffff::1", Some(Multicast)),
    ]
};

/// What becomes of a host as written.
enum Spelled {
    /// The parser refuses the URL.
    Bad(UrlProblem),
    /// It is this address, and is judged as it.
    Addr(&'static str),
    /// It is a name, in this normal form.
    Name(&'static str),
}

/// One row per spelling of a whole URL.
#[rustfmt::skip]
const SPELLINGS: &[(&str, Spelled)] = {
    use Spelled::{Addr, Bad, Name};
    use UrlProblem::{ForbiddenCharacter, Fragment, Malformed, Port, Scheme, UserInfo};
    &[
        // Numbers of all kinds are the loopback address.
        ("http://127.0.0.1/", Addr("127.0.0.1")), ("http://2130706433/", Addr("127.0.0.1")),
        ("http://0x7f000001/", Addr("127.0.0.1")), ("http://0X7F000001/", Addr("127.0.0.1")),
        ("http://017700000001/", Addr("127.0.0.1")), ("http://0177.0.0.1/", Addr("127.0.0.1")),
        ("http://0x7f.0.0.1/", Addr("127.0.0.1")), ("http://0x7f.1/", Addr("127.0.0.1")),
        ("http://127.1/", Addr("127.0.0.1")), ("http://127.0.1/", Addr("127.0.0.1")),
        ("http://127.0.0.1./", Addr("127.0.0.1")), ("http://00000177.0.0.01/", Addr("127.0.0.1")),
        ("http://0/", Addr("0.0.0.0")), ("http://0x0/", Addr("0.0.0.0")), ("http://0./", Addr("0.0.0.0")),
        ("http://0xa9fea9fe/", Addr("169.254.169.254")), ("http://2852039166/", Addr("169.254.169.254")),
        ("http://169.254.43518/", Addr("169.254.169.254")), ("http://0251.0376.0251.0376/", Addr("169.254.169.254")),
        ("http://256/", Addr("0.0.1.0")), ("http://127.0.0.256/", Bad(Malformed)), ("http://4294967296/", Bad(Malformed)),
        ("http://1.2.3.4.5/", Bad(Malformed)), ("http://127.0.0.08/", Bad(Malformed)), ("http://0x7f.0.0.g/", Name("0x7f.0.0.g")),
        // Encodings of digits, dots and letters.
        ("http://%31%32%37.0.0.1/", Addr("127.0.0.1")), ("http://127%2e0%2E0%2e1/", Addr("127.0.0.1")),
        ("http://１２７.０.０.１/", Addr("127.0.0.1")), ("http://①②⑦.⓪.⓪.①/", Addr("127.0.0.1")),
        ("http://127。0。0。1/", Addr("127.0.0.1")), ("http://127．0．0．1/", Addr("127.0.0.1")),
        ("http://127｡0｡0｡1/", Addr("127.0.0.1")), ("http://𝟏𝟐𝟕.𝟎.𝟎.𝟏/", Addr("127.0.0.1")),
        ("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", Name("localhost")), ("http://LocalHost/", Name("localhost")),
        ("http://local\u{ad}host/", Name("localhost")), ("http://%6c%6F%63alhost/", Name("localhost")),
        ("http://127.0.0.1%00/", Bad(Malformed)), ("http://127.0.0.1%0a/", Bad(Malformed)),
        ("http://127.0.0.1%2f@h/", Bad(UserInfo)), ("http://a%20b/", Bad(Malformed)), ("http://a%23b/", Bad(Malformed)),
        // IPv6 in brackets.
        ("http://[::1]/", Addr("::1")), ("http://[0:0:0:0:0:0:0:1]/", Addr("::1")), ("http://[::]/", Addr("::")),
        ("http://[::ffff:127.0.0.1]/", Addr("127.0.0.1")), ("http://[::FFFF:7F00:1]/", Addr("127.0.0.1")),
        ("http://[::127.0.0.1]/", Addr("::7f00:1")), ("http://[64:ff9b::127.0.0.1]/", Addr("64:ff9b::7f00:1")),
        ("http://[2002:7f00:1::]/", Addr("2002:7f00:1::")), ("http://[fe80::1%25eth0]/", Bad(Malformed)),
        ("http://[fe80::1%eth0]/", Bad(Malformed)), ("http://[::1/", Bad(Malformed)), ("http://::1/", Bad(Malformed)),
        ("http://[127.0.0.1]/", Bad(Malformed)), ("http://[::1].example/", Bad(Malformed)),
        ("http://[v1.fe80::1]/", Bad(Malformed)), ("http://[::ffff:0x7f.1]/", Bad(Malformed)),
        // Names are names, wherever they point; the resolver's answer is judged.
        ("http://localhost/", Name("localhost")), ("http://localhost./", Name("localhost.")),
        ("http://kubernetes.default.svc/", Name("kubernetes.default.svc")),
        ("http://api.prod.svc.cluster.local/", Name("api.prod.svc.cluster.local")),
        ("http://metadata.google.internal/", Name("metadata.google.internal")),
        ("http://127.0.0.1.nip.io/", Name("127.0.0.1.nip.io")), ("http://0x7f.1.example/", Name("0x7f.1.example")),
        ("http://bücher.example/", Name("xn--bcher-kva.example")), ("http://EXAMPLE.com/", Name("example.com")),
        // User information, in every place that has fooled somebody.
        ("http://good@evil/", Bad(UserInfo)), ("http://good.example:80@127.0.0.1/", Bad(UserInfo)),
        ("http://@127.0.0.1/", Bad(UserInfo)), ("http://:@127.0.0.1/", Bad(UserInfo)),
        ("http://good.example%40127.0.0.1/", Bad(Malformed)), ("http://good.example/@127.0.0.1", Name("good.example")),
        ("http://127.0.0.1?@good.example/", Addr("127.0.0.1")), ("http://127.0.0.1#@good.example/", Bad(Fragment)),
        // Characters about which parsers disagree.
        ("http:\\\\127.0.0.1\\", Bad(ForbiddenCharacter)), ("http://good.example\\@127.0.0.1/", Bad(ForbiddenCharacter)),
        ("http://127.0.0.1\t/", Bad(ForbiddenCharacter)), ("ht\ntp://127.0.0.1/", Bad(ForbiddenCharacter)),
        ("http://h/\r\nHost: evil", Bad(ForbiddenCharacter)), (" http://127.0.0.1/", Bad(ForbiddenCharacter)),
        ("http://127.0.0.1/\u{0}", Bad(ForbiddenCharacter)), ("http://127.0.0.1\u{a0}/", Bad(ForbiddenCharacter)),
        ("http://h/\u{1b}[31m", Bad(ForbiddenCharacter)),
        // Ports and schemes.
        ("http://h:0/", Bad(Port)), ("http://h:00/", Bad(Port)), ("http://h:65536/", Bad(Malformed)),
        ("http://h:-1/", Bad(Malformed)), ("http://h:1/", Name("h")), ("http://h:65535/", Name("h")),
        ("http://h:/", Name("h")), ("http://h:80x/", Bad(Malformed)), ("HTTPS://h/", Name("h")),
        ("file:///etc/passwd", Bad(Scheme)), ("gopher://127.0.0.1/", Bad(Scheme)), ("ftp://h/", Bad(Scheme)),
        ("ws://h/", Bad(Scheme)), ("javascript:alert(1)", Bad(Scheme)), ("data:text/plain,x", Bad(Scheme)),
        ("unix:///run/x.sock", Bad(Scheme)), ("http+unix://x/", Bad(Scheme)), ("//127.0.0.1/", Bad(Scheme)),
        ("127.0.0.1", Bad(Scheme)), ("/path", Bad(Scheme)), ("", Bad(Scheme)), ("http:127.0.0.1", Bad(Scheme)),
        ("http:/127.0.0.1/", Bad(Scheme)), ("http://", Bad(Malformed)), ("http://?x", Bad(Malformed)),
        ("http://:80/", Bad(Malformed)), ("http:///127.0.0.1/", Addr("127.0.0.1")), ("http://h/#x", Bad(Fragment)),
        ("http://h/?x#", Bad(Fragment)),
    ]
};

#[test]
fn every_address_has_its_class() {
    let open = AddressPolicy::default();
    for (text, want) in ADDRESSES {
        let addr: IpAddr = text.parse().unwrap();
        assert_eq!(open.check(addr).err(), *want, "{text}");
    }
    assert!(ADDRESSES.len() >= 130, "rows were lost: {}", ADDRESSES.len());
}

#[test]
fn every_spelling_is_what_it_is() {
    for (text, want) in SPELLINGS {
        let parsed = CheckedUrl::parse(text);
        match (want, &parsed) {
            (Spelled::Bad(problem), Err(found)) => assert_eq!(found, problem, "{text:?}"),
            (Spelled::Addr(addr), Ok(url)) => {
                let literal = url
                    .literal()
                    .unwrap_or_else(|| panic!("{text:?} is a name: {}", url.host()));
                assert_eq!(
                    literal.to_canonical(),
                    addr.parse::<IpAddr>().unwrap(),
                    "{text:?}"
                );
            }
            (Spelled::Name(name), Ok(url)) => {
                assert_eq!(url.literal(), None, "{text:?}");
                assert_eq!(url.host(), *name, "{text:?}");
            }
            _ => panic!(
                "{text:?} became {parsed:?} {:?}",
                parsed.as_ref().map(CheckedUrl::host)
            ),
        }
    }
    assert!(SPELLINGS.len() >= 90, "rows were lost: {}", SPELLINGS.len());
}

#[test]
fn length_is_limited_in_bytes() {
    let of_length = |bytes: usize| format!("https://h/{}", "x".repeat(bytes - "https://h/".len()));
    assert!(CheckedUrl::parse(&of_length(2048)).is_ok());
    assert_eq!(CheckedUrl::parse(&of_length(2049)), Err(UrlProblem::TooLong));
}

#[test]
fn allow_list_opens_what_it_names_in_every_form() {
    let check = |networks: &[&str], addr: &str| policy(networks).check(addr.parse().unwrap());
    for addr in [
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "64:ff9b::a01:203",
        "2002:a01:203::1",
    ] {
        assert_eq!(check(&["10.0.0.0/8"], addr), Ok(()), "{addr}");
        assert!(check(&["10.128.0.0/9"], addr).is_err(), "{addr}");
    }
    assert_eq!(check(&["::ffff:10.0.0.0/104"], "10.1.2.3"), Ok(()));
    assert_eq!(check(&["10.1.2.3"], "10.1.2.3"), Ok(()));
    assert_eq!(check(&["10.1.2.3"], "10.1.2.4"), Err(Refused::Private));
    assert_eq!(check(&["fd00::/8"], "fd12::1"), Ok(()));
    assert_eq!(check(&["2001::/32"], "2001::1"), Ok(()));
    assert_eq!(check(&["0.0.0.0/0"], "127.0.0.1"), Ok(()));
    assert_eq!(check(&["0.0.0.0/0"], "::1"), Err(Refused::Loopback));
    assert_eq!(check(&["::/0"], "127.0.0.1"), Err(Refused::Loopback));
    // Deprecated and tunnelled forms are not reached by allowing what they hold.
    assert_eq!(check(&["127.0.0.0/8"], "::7f00:1"), Err(Refused::Ipv4Compatible));
    assert_eq!(
        check(&["127.0.0.0/8"], "2001:0:7f00:1::80ff:fffe"),
        Err(Refused::Teredo)
    );
}

#[test]
fn metadata_is_opened_only_by_its_exact_name() {
    let check = |networks: &[&str], addr: &str| policy(networks).check(addr.parse().unwrap());
    let wide = [
        "0.0.0.0/0",
        "::/0",
        "169.254.0.0/16",
        "169.254.169.254/31",
        "fd00::/8",
        "fd00:ec2::254/127",
    ];
    let metadata = ADDRESSES
        .iter()
        .filter(|(_, class)| *class == Some(Refused::Metadata));
    let mut seen = 0;
    for (addr, _) in metadata {
        seen += 1;
        assert_eq!(
            check(&wide, addr),
            Err(Refused::Metadata),
            "{addr} by wide networks"
        );
        assert_eq!(check(&[addr], addr), Ok(()), "{addr} by its name");
    }
    assert!(seen >= 20, "{seen}");
    let named = ["169.254.169.254/32"];
    for addr in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ] {
        assert_eq!(check(&named, addr), Ok(()), "{addr}");
    }
    assert_eq!(check(&named, "169.254.169.253"), Err(Refused::Metadata));
    assert_eq!(check(&named, "169.254.1.1"), Err(Refused::LinkLocal));
    assert_eq!(check(&["fd00:ec2::254/128"], "fd00:ec2::254"), Ok(()));
}

#[test]
fn plain_http_needs_a_listed_network() {
    let listed = policy(&["10.0.0.0/8"]);
    let check = |addr: &str| listed.check_listed(addr.parse().unwrap());
    assert_eq!(check("10.1.2.3"), Ok(()));
    assert_eq!(check("::ffff:10.1.2.3"), Ok(()));
    assert_eq!(check("8.8.8.8"), Err(Refused::PlainHttp));
    assert_eq!(check("2606:4700::1111"), Err(Refused::PlainHttp));
    assert_eq!(check("192.168.0.1"), Err(Refused::Private));
}

#[test]
fn allow_list_entries_are_read_strictly() {
    for bad in [
        "",
        "10",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "fd00::/129",
        "localhost",
        "10.0.0.0/8,fd00::/8",
    ] {
        assert_eq!(
            AddressPolicy::parse([bad]),
            Err(AllowListError::NotANetwork(bad.to_owned())),
            "{bad:?}"
        );
    }
    let error = AddressPolicy::parse(["10.1.2.3/8"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"10.1.2.3/8\" has bits set behind its prefix: did you mean 10.0.0.0/8?"
    );
    let read = policy(&[" 10.0.0.0/8 ", "fd00::1", "::ffff:192.168.0.0/112"]);
    let shown: Vec<_> = read.networks().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "fd00::1/128", "192.168.0.0/16"]);
}

/// All the ways to put an IPv4 address into an IPv6 one.
fn embeddings(v4: Ipv4Addr, noise: [u16; 4]) -> Vec<Ipv6Addr> {
    let [a, b, c, d] = v4.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let [n0, n1, n2, n3] = noise;
    vec![
        v4.to_ipv6_mapped(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 1, n0, n1, n2, high, low),
        Ipv6Addr::new(0x2002, high, low, n0, n1, n2, n3, n0),
        Ipv6Addr::new(0x2001, 0, high, low, n0, n1, n2, n3),
        Ipv6Addr::new(0x2001, 0, n0, n1, n2, n3, !high, !low),
    ]
}

/// IPv4 addresses, drawn so that most are near or in a special range.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let listed: Vec<Ipv4Addr> = ADDRESSES
        .iter()
        .filter_map(|(text, _)| text.parse().ok())
        .collect();
    let near = (prop::sample::select(listed), -300_i64..300).prop_map(|(base, step)| {
        let moved = (i64::from(u32::from(base)) + step).clamp(0, i64::from(u32::MAX));
        Ipv4Addr::from(u32::try_from(moved).unwrap())
    });
    prop_oneof![any::<u32>().prop_map(Ipv4Addr::from), near]
}

proptest! {
    #[test]
    fn no_embedding_of_a_refused_address_is_allowed(v4 in v4(), noise in any::<[u16; 4]>()) {
        let open = AddressPolicy::default();
        if open.check(v4.into()).is_err() {
            for form in embeddings(v4, noise) {
                prop_assert!(open.check(form.into()).is_err(), "{} in {}", v4, form);
            }
        }
    }

    #[test]
    fn no_embedding_reaches_metadata_through_a_wide_allow_list(noise in any::<[u16; 4]>()) {
        let wide = policy(&["0.0.0.0/0", "::/0"]);
        for (text, class) in ADDRESSES {
            if let (Ok(v4), Some(Refused::Metadata)) = (text.parse::<Ipv4Addr>(), class) {
                for form in embeddings(v4, noise) {
                    prop_assert_eq!(wide.check(form.into()), Err(Refused::Metadata), "{} in {}", v4, form);
                }
            }
        }
    }

    #[test]
    fn the_guard_agrees_with_the_standard_library(v4 in v4()) {
        let special = v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast()
            || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
        if special {
            prop_assert!(AddressPolicy::default().check(v4.into()).is_err(), "{}", v4);
        }
    }

    #[test]
    fn urls_never_panic_and_read_the_same_twice(text in "(https?://)?[ -~\u{a0}-\u{ff}]{0,40}") {
        if let Ok(url) = CheckedUrl::parse(&text) {
            let again = CheckedUrl::parse(url.as_str()).unwrap();
            prop_assert_eq!(url.literal(), again.literal());
            prop_assert_eq!(url.host(), again.host());
            prop_assert_eq!(url.port(), again.port());
        }
    }
}
