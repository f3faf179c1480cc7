//! Looking up host names without the C library, for programs that are linked statically.
//!
//! `getaddrinfo` of a static glibc loads the system's shared libraries, which have to be of the very
//! version that it was linked with; elsewhere it fails or crashes. This resolver reads `/etc/hosts`
//! and asks the name servers of `/etc/resolv.conf`. Other sources of `/etc/nsswitch.conf` (mDNS,
//! LDAP) are not asked.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use resolv_conf::Config as Servers;
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// What fits into one datagram on every path.
const DATAGRAM: u16 = 1232;

/// Names from a hosts file, and from the servers of a resolv.conf.
#[derive(Debug)]
pub(super) struct FileResolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    /// Where name servers listen.
    port: u16,
}

/// What a server said.
enum Answer {
    Addresses(Vec<IpAddr>),
    /// There is no such name, or none with an address.
    Unknown,
}

impl Default for FileResolver {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into(), port: 53 }
    }
}

impl Resolver for FileResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let found = self.lookup(host, *timeout.after).into_iter();
        let mut addresses = self.empty();
        // As many as the type has room for.
        for address in config.ip_family().keep_wanted(found.map(|ip| (ip, port).into())).take(16) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl FileResolver {
    /// The addresses of a name, those of IPv4 first; none if nobody knows it.
    fn lookup(&self, host: &str, most: Duration) -> Vec<IpAddr> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return vec![address];
        }
        let mut found = self.in_hosts(host);
        if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
            found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if found.is_empty() {
            found = self.in_dns(host, most);
        }
        found.sort_by_key(IpAddr::is_ipv6);
        found
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let text = std::fs::read(&self.hosts).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let address = |line: &str| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        };
        text.lines().filter_map(address).collect()
    }

    fn in_dns(&self, host: &str, most: Duration) -> Vec<IpAddr> {
        let text = std::fs::read(&self.resolv_conf).unwrap_or_default();
        // What cannot be read of it is passed over, as the C library does.
        let (mut servers, _) = Servers::parse_with_errors(&text);
        servers.glibc_normalize();
        let wait = Duration::from_secs(servers.timeout.into()).min(most);
        let addresses: Vec<SocketAddr> = servers
            .get_nameservers_or_local()
            .iter()
            .map(|server| (IpAddr::from(server), self.port).into())
            .collect();
        for name in names(host, &servers) {
            let answers = [TYPE::A, TYPE::AAAA].map(|kind| {
                let tries = (0..servers.attempts).flat_map(|_| &addresses);
                tries.into_iter().find_map(|&server| ask(server, &name, kind, wait).ok())
            });
            let found: Vec<_> = answers.into_iter().flatten().flat_map(Answer::addresses).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }
}

impl Answer {
    fn addresses(self) -> Vec<IpAddr> {
        match self {
            Self::Addresses(addresses) => addresses,
            Self::Unknown => Vec::new(),
        }
    }
}

/// The full names that a name may stand for, in the order to try: one with few dots is tried in the
/// search domains first, one that ends in a dot stands for itself.
fn names(host: &str, servers: &Servers) -> Vec<String> {
    if let Some(full) = host.strip_suffix('.') {
        return vec![full.to_owned()];
    }
    let domains = servers.get_last_search_or_domain();
    let mut names: Vec<_> = domains.map(|domain| format!("{host}.{domain}")).collect();
    let dots = host.bytes().filter(|&byte| byte == b'.').count();
    let own = if dots >= servers.ndots as usize { 0 } else { names.len() };
    names.insert(own, host.to_owned());
    names
}

/// Asks one server. An error is one of the server or the way to it: another may know.
fn ask(server: SocketAddr, name: &str, kind: TYPE, wait: Duration) -> io::Result<Answer> {
    // Unlike for every other draw of this program it matters that nobody can foretell it.
    let id = RandomState::new().hash_one(name) as u16;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, format!("{error}"));
    let name = Name::new(name).map_err(invalid)?;
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    *query.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: DATAGRAM, version: 0 });
    let query = query.build_bytes_vec().map_err(invalid)?;

    let here: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((here, 0))?;
    // From then on only this server is heard.
    socket.connect(server)?;
    socket.set_read_timeout(Some(wait))?;
    socket.send(&query)?;
    let mut bytes = vec![0; DATAGRAM.into()];
    let length = socket.recv(&mut bytes)?;
    let reply = Packet::parse(&bytes[..length]).map_err(invalid)?;
    if reply.id() == id && reply.has_flags(PacketFlag::TRUNCATION) {
        let bytes = over_tcp(server, &query, wait)?;
        return read(&Packet::parse(&bytes).map_err(invalid)?, id);
    }
    read(&reply, id)
}

/// The same question where the answer is too long for a datagram.
fn over_tcp(server: SocketAddr, query: &[u8], wait: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.write_all(&(query.len() as u16).to_be_bytes())?;
    stream.write_all(query)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read(reply: &Packet<'_>, id: u16) -> io::Result<Answer> {
    if reply.id() != id || !reply.has_flags(PacketFlag::RESPONSE) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an answer to this question"));
    }
    match reply.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Ok(Answer::Unknown),
        other => return Err(io::Error::other(format!("{other:?}"))),
    }
    // A server that follows aliases gives the whole chain; its addresses are the name's.
    let addresses = reply.answers.iter().filter_map(|answer| match &answer.rdata {
        RData::A(a) => Some(IpAddr::from(Ipv4Addr::from(a.address))),
        RData::AAAA(a) => Some(IpAddr::from(Ipv6Addr::from(a.address))),
        _ => None,
    });
    Ok(Answer::Addresses(addresses.collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;
    use std::thread;

    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};

    use super::*;

    /// What the server of the test knows: `cdn.test`, an alias of `host.test`; `long.test`, whose
    /// answer is cut off in a datagram; everything else is unknown.
    fn reply(bytes: &[u8], datagram: bool) -> Vec<u8> {
        let query = Packet::parse(bytes).unwrap();
        let name = query.questions[0].qname.to_string();
        let mut reply = Packet::new_reply(query.id());
        reply.questions = query.questions.clone();
        let mut push = |name: &str, data| {
            let name = Name::new(name).unwrap().into_owned();
            reply.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
        };
        let v4 = |last| RData::A(A { address: Ipv4Addr::new(192, 0, 2, last).into() });
        match (name.as_str(), query.questions[0].qtype == TYPE::A.into()) {
            ("cdn.test", true) => {
                push("cdn.test", RData::CNAME(CNAME(Name::new_unchecked("host.test"))));
                push("host.test", v4(7));
            }
            ("cdn.test", false) => {
                let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).into();
                push("host.test", RData::AAAA(AAAA { address }));
            }
            ("long.test", true) if datagram => reply.set_flags(PacketFlag::TRUNCATION),
            ("long.test", true) => (0..200).for_each(|last| push("long.test", v4(last))),
            _ => *reply.rcode_mut() = RCODE::NameError,
        }
        reply.build_bytes_vec().unwrap()
    }

    /// A name server on a port of its own, until the test's process ends.
    fn server() -> u16 {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut bytes) {
                udp.send_to(&reply(&bytes[..length], true), from).unwrap();
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let (mut stream, mut length) = (stream.unwrap(), [0; 2]);
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut query).unwrap();
                let reply = reply(&query, false);
                stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        port
    }

    struct Case {
        _folder: tempfile::TempDir,
        resolver: FileResolver,
    }

    impl Case {
        fn new(hosts: &str, resolv_conf: &str, port: u16) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = |name| folder.path().join(name);
            let resolver =
                FileResolver { hosts: path("hosts"), resolv_conf: path("resolv.conf"), port };
            std::fs::write(&resolver.hosts, hosts).unwrap();
            std::fs::write(&resolver.resolv_conf, resolv_conf).unwrap();
            Self { _folder: folder, resolver }
        }

        fn lookup(&self, host: &str) -> Vec<String> {
            let found = self.resolver.lookup(host, Duration::from_secs(2));
            found.iter().map(IpAddr::to_string).collect()
        }
    }

    #[test]
    fn a_hosts_file_comes_first_and_addresses_are_themselves() {
        let hosts = "# 192.0.2.1 mirror\n192.0.2.2\tother Mirror # here\n::1 mirror\nnonsense\n";
        let case = Case::new(hosts, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", 1);
        assert_eq!(case.lookup("mirror"), ["192.0.2.2", "::1"]);
        assert_eq!(case.lookup("192.0.2.9"), ["192.0.2.9"]);
        assert_eq!(case.lookup("[2001:db8::1]"), ["2001:db8::1"]);
        assert_eq!(case.lookup("localhost"), ["127.0.0.1", "::1"]);
        assert!(case.lookup("nowhere.test").is_empty(), "nobody listens");
    }

    #[test]
    fn name_servers_answer_over_datagrams_and_streams_with_aliases_and_domains() {
        let port = server();
        let case = Case::new("", "nameserver 127.0.0.1\nsearch no.test test\nfoo bar\n", port);
        assert_eq!(case.lookup("cdn.test"), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(case.lookup("cdn.test."), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(case.lookup("cdn"), ["192.0.2.7", "2001:db8::7"], "in the search domains");
        assert_eq!(case.lookup("long.test").len(), 200);
        assert!(case.lookup("unknown.test").is_empty());
        // A server that is silent gives way to the next.
        let silent = "nameserver 127.0.0.2\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        assert_eq!(Case::new("", silent, port).lookup("cdn.test")[0], "192.0.2.7");
    }

    #[test]
    fn it_serves_a_client() {
        let case = Case::new("192.0.2.2 mirror\n::1 mirror\n", "", 1);
        let resolve = |address: &str| {
            let timeout = NextTimeout::default();
            let uri: Uri = address.parse().unwrap();
            case.resolver.resolve(&uri, &Config::default(), timeout).map(|found| found.to_vec())
        };
        let found = resolve("https://mirror/file").unwrap();
        assert_eq!(found, ["192.0.2.2:443".parse().unwrap(), "[::1]:443".parse().unwrap()]);
        assert_eq!(resolve("http://mirror:8080/").unwrap()[0].port(), 8080);
        assert!(matches!(resolve("http://other/"), Err(ureq::Error::HostNotFound)));
    }
}
