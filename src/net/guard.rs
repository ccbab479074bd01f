//! The address guard: which IP addresses the operator may connect to. Pure; resolves and connects nothing.
//!
//! Users name addresses (`baseUrl`, `proxyUrl`, the `url` of a probe), and the operator sits inside the cluster
//! network. Without this check a manifest could make it talk to the cluster's own services, to other tenants, or
//! to the cloud's metadata service. [`super::resolve`] applies it to every address of a name, [`super::http`] to
//! literal addresses and, once more, to the peer of the connection.
//!
//! Ranges follow the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and its updates). IPv6 is judged
//! by a positive list: only `2000::/3` and the well-known NAT64 prefix can be public at all.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};

/// Why an address is refused. The text of each is fixed, so that it can stand in a status or an Event without
/// telling more about the network than the class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refused {
    /// `0.0.0.0` or `::`, which many systems take for the local host.
    Unspecified,
    /// `127.0.0.0/8` or `::1`.
    Loopback,
    /// RFC 1918.
    Private,
    /// `169.254.0.0/16` or `fe80::/10`.
    LinkLocal,
    /// `fc00::/7`, RFC 4193.
    UniqueLocal,
    /// `100.64.0.0/10`, RFC 6598 (carrier-grade NAT; several clusters use it for pods).
    SharedAddress,
    /// `224.0.0.0/4` or `ff00::/8`.
    Multicast,
    /// Set aside by IANA: this network, documentation, benchmarks, protocol assignments, ORCHID, future use,
    /// broadcast, site-local, and every IPv6 address outside of global unicast.
    Reserved,
    /// A cloud's metadata or host service. Allowed only if named exactly.
    Metadata,
    /// `::a.b.c.d`, deprecated by RFC 4291; no public host has such an address.
    Ipv4Compatible,
    /// NAT64 form (`64:ff9b::/96`) of a refused address, or any local-use NAT64 address (`64:ff9b:1::/48`, where
    /// the place of the embedded address is a local choice that cannot be known here).
    Nat64,
    /// 6to4 form (`2002::/16`) of a refused address.
    SixToFour,
    /// Any Teredo address (`2001::/32`): it points at a tunnel end behind a NAT, never at a public service.
    Teredo,
    /// Unencrypted HTTP towards a network that the operator was not started to allow.
    PlainHttp,
}

impl Refused {
    /// The fixed text, a noun phrase that completes "the address is ...".
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "the unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::UniqueLocal => "a unique local address",
            Self::SharedAddress => "a shared (carrier-grade NAT) address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
            Self::Metadata => "a cloud metadata address",
            Self::Ipv4Compatible => "an IPv4-compatible IPv6 address",
            Self::Nat64 => "a NAT64 form of a refused address",
            Self::SixToFour => "a 6to4 form of a refused address",
            Self::Teredo => "a Teredo address",
            Self::PlainHttp => "outside of the networks allowed for unencrypted http",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Refused {}

/// A value of `--allow-network` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowListError {
    /// Neither a CIDR nor an address.
    #[error("{0:?} is not a network: give a CIDR such as 10.0.0.0/8 or fd00::/8")]
    NotANetwork(String),
    /// Bits are set behind the prefix: probably a typing error, and guessing would open a wider network.
    #[error("{given:?} has bits set behind its prefix: did you mean {meant}?")]
    HostBits {
        /// As given.
        given: String,
        /// The network that contains it.
        meant: IpNet,
    },
}

/// The operator-wide policy: everything public, plus the networks of `--allow-network`.
///
/// Comes from the command line only, never from a Kubernetes object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
}

impl AddressPolicy {
    /// A policy that allows `networks` on top of what is public. Prefer [`AddressPolicy::parse`] for user input.
    #[must_use]
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            allow: networks.into_iter().map(canonical_net).collect(),
        }
    }

    /// Reads the values of `--allow-network`: CIDRs, or bare addresses, which count as `/32` or `/128`.
    ///
    /// # Errors
    /// The first entry that is no network, or has bits set behind its prefix.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self, AllowListError> {
        entries
            .into_iter()
            .map(|entry| parse_net(entry.as_ref().trim()))
            .collect::<Result<Vec<_>, _>>()
            .map(Self::new)
    }

    /// The allowed networks, in the order given, IPv4-mapped ones as IPv4.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.allow
    }

    /// Whether the operator may connect to `addr`. IPv4-mapped IPv6 addresses are judged as IPv4, NAT64 and 6to4
    /// addresses by the IPv4 address that they hold.
    ///
    /// # Errors
    /// The class of the refused address.
    pub fn check(&self, addr: IpAddr) -> Result<(), Refused> {
        let addr = addr.to_canonical();
        // Before the allow list: a wide network there must not open the credentials of the node.
        if self.hides_metadata(addr) {
            return Err(Refused::Metadata);
        }
        if self.lists(addr) {
            return Ok(());
        }
        match addr {
            IpAddr::V4(v4) => classify_v4(v4).map_or(Ok(()), Err),
            IpAddr::V6(v6) => self.check_v6(v6),
        }
    }

    /// Like [`AddressPolicy::check`], for unencrypted HTTP with credentials: only the listed networks will do.
    ///
    /// # Errors
    /// The class of the refused address; [`Refused::PlainHttp`] for a public one.
    pub fn check_listed(&self, addr: IpAddr) -> Result<(), Refused> {
        self.check(addr)?;
        if self.lists(addr.to_canonical()) {
            Ok(())
        } else {
            Err(Refused::PlainHttp)
        }
    }

    /// Whether one of the allowed networks contains the (canonical) address.
    fn lists(&self, addr: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&addr))
    }

    /// Whether the allow list holds exactly this address, not merely a network around it.
    fn names(&self, addr: IpAddr) -> bool {
        self.allow
            .iter()
            .any(|net| net.prefix_len() == net.max_prefix_len() && net.addr() == addr)
    }

    /// Whether the address is, or embeds, a metadata address that was not named.
    fn hides_metadata(&self, addr: IpAddr) -> bool {
        if self.names(addr) {
            return false;
        }
        let embedded = match addr {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(v6) => embedded_v4(v6),
        };
        std::iter::once(addr)
            .chain(embedded.into_iter().map(IpAddr::V4))
            .any(|form| is_metadata(form) && !self.names(form))
    }

    fn check_v6(&self, addr: Ipv6Addr) -> Result<(), Refused> {
        match classify_v6(addr) {
            V6Class::Public => Ok(()),
            V6Class::Refused(class) => Err(class),
            V6Class::Holds(v4, form) => self.check(IpAddr::V4(v4)).map_err(|_| form),
        }
    }
}

/// Reads one entry of the allow list.
fn parse_net(entry: &str) -> Result<IpNet, AllowListError> {
    if let Ok(addr) = entry.parse::<IpAddr>() {
        return Ok(IpNet::from(addr));
    }
    let net: IpNet = entry
        .parse()
        .map_err(|_| AllowListError::NotANetwork(entry.to_owned()))?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(AllowListError::HostBits {
            given: entry.to_owned(),
            meant: net.trunc(),
        })
    }
}

/// Turns a network inside `::ffff:0:0/96` into the IPv4 network that it means, as addresses are compared as IPv4.
fn canonical_net(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let (Some(v4), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) else {
        return net;
    };
    Ipv4Net::new(v4, prefix).map_or(net, IpNet::V4)
}

/// Addresses at which clouds serve credentials or control to the node itself.
///
/// Sources: the vendors' documentation of their instance metadata, pod identity, DNS and time services.
const METADATA_V4: [Ipv4Addr; 9] = [
    // AWS, GCP, Azure, OpenStack, DigitalOcean, Oracle, Hetzner and most others.
    Ipv4Addr::new(169, 254, 169, 254),
    // AWS: DNS and time of the VPC, ECS task credentials, EKS pod identity.
    Ipv4Addr::new(169, 254, 169, 253),
    Ipv4Addr::new(169, 254, 169, 123),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Tencent Cloud.
    Ipv4Addr::new(169, 254, 0, 23),
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's WireServer: a public address, reachable from every virtual machine.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle Cloud (classic).
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The same for IPv6; see [`METADATA_V4`].
const METADATA_V6: [Ipv6Addr; 8] = [
    // AWS: metadata, DNS, time, EKS pod identity.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // GCP.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // OpenStack.
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Akamai (Linode) and Scaleway.
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

fn is_metadata(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => METADATA_V4.contains(&v4),
        IpAddr::V6(v6) => METADATA_V6.contains(&v6),
    }
}

/// The class that refuses an IPv4 address, or nothing for a public one.
fn classify_v4(addr: Ipv4Addr) -> Option<Refused> {
    let [a, b, c, _] = addr.octets();
    let class = match (a, b, c) {
        _ if addr.is_unspecified() => Refused::Unspecified,
        (127, ..) => Refused::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Refused::Private,
        (169, 254, _) => Refused::LinkLocal,
        (100, 64..=127, _) => Refused::SharedAddress,
        (224..=239, ..) => Refused::Multicast,
        // This network; IETF protocol assignments; documentation 1 to 3; former 6to4 relay anycast; benchmarks;
        // future use with broadcast.
        (0, ..)
        | (192, 0, 0 | 2)
        | (198, 51, 100)
        | (203, 0, 113)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (240..=255, ..) => Refused::Reserved,
        _ => return None,
    };
    Some(class)
}

/// What an IPv6 address is, before the allow list has its say about an address that it holds.
enum V6Class {
    Public,
    Refused(Refused),
    /// Stands for this IPv4 address and is judged by it; refused as the given class.
    Holds(Ipv4Addr, Refused),
}

fn classify_v6(addr: Ipv6Addr) -> V6Class {
    let segments = addr.segments();
    let class = match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Refused::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Refused::Loopback,
        [0, 0, 0, 0, 0, 0, ..] => Refused::Ipv4Compatible,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => return V6Class::Holds(v4_from(high, low), Refused::Nat64),
        [0x64, 0xff9b, 1, ..] => Refused::Nat64,
        [0x2002, high, low, ..] => return V6Class::Holds(v4_from(high, low), Refused::SixToFour),
        [0x2001, 0, ..] => Refused::Teredo,
        // The rest of the protocol assignments 2001::/23: benchmarks, ORCHID, ORCHIDv2, drone identifiers, anycast.
        [0x2001, 0..=0x1ff, ..] => Refused::Reserved,
        // Documentation (twice) and the returned 6bone.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x3ffe, ..] => Refused::Reserved,
        [0x2000..=0x3fff, ..] => return V6Class::Public,
        [0xfe80..=0xfebf, ..] => Refused::LinkLocal,
        [0xfc00..=0xfdff, ..] => Refused::UniqueLocal,
        [0xff00..=0xffff, ..] => Refused::Multicast,
        // Discard-only, site-local, SRv6 identifiers, and all that IANA has not handed out.
        _ => Refused::Reserved,
    };
    V6Class::Refused(class)
}

/// The IPv4 address in two neighbouring segments.
fn v4_from(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

/// Every IPv4 address that an IPv6 address may stand for.
fn embedded_v4(addr: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = addr.segments();
    match (s0, s1, s2) {
        (0, 0, 0) if s3 == 0 && s4 == 0 && s5 == 0 => vec![v4_from(s6, s7)],
        (0x64, 0xff9b, 0) => vec![v4_from(s6, s7)],
        // RFC 6052, section 2.2: the place depends on the prefix length, and bits 64 to 71 are skipped.
        (0x64, 0xff9b, 1) => {
            let [_, _, _, _, _, _, o6, o7, _, o9, o10, o11, o12, ..] = addr.octets();
            vec![
                Ipv4Addr::new(o6, o7, o9, o10),
                Ipv4Addr::new(o7, o9, o10, o11),
                Ipv4Addr::new(o9, o10, o11, o12),
                v4_from(s6, s7),
            ]
        }
        (0x2002, ..) => vec![v4_from(s1, s2)],
        // RFC 4380, section 4: the server in clear, the client with all bits inverted.
        (0x2001, 0, _) => vec![v4_from(s2, s3), v4_from(!s6, !s7)],
        _ => Vec::new(),
    }
}
