//! Lines of `/proc/net/{tcp,udp,unix,packet,…}`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value};

use super::super::text;

/// A socket as its table tells it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Socket {
    /// 0 for one that nobody holds.
    pub(super) inode: u64,
    pub(super) fields: Map<String, Value>,
}

type Parse = fn(&[u8]) -> Option<Socket>;

/// The tables, with what reads their lines. The first line of each is its heading.
pub(super) const TABLES: [(&str, Parse); 12] = [
    ("tcp", tcp),
    ("tcp6", tcp),
    ("udp", datagrams),
    ("udp6", datagrams),
    ("udplite", datagrams),
    ("udplite6", datagrams),
    ("raw", datagrams),
    ("raw6", datagrams),
    ("icmp", datagrams),
    ("icmp6", datagrams),
    ("packet", packet),
    ("unix", unix),
];

fn tcp(line: &[u8]) -> Option<Socket> {
    internet(line, tcp_state)
}

fn datagrams(line: &[u8]) -> Option<Socket> {
    internet(line, |state| if state == 1 { "CONNECTED" } else { "UNCONNECTED" })
}

/// `sl local remote state tx:rx timer retransmits uid timeout inode …`
fn internet(line: &[u8], state: fn(u8) -> &'static str) -> Option<Socket> {
    let text = std::str::from_utf8(line).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let (local, local_port) = endpoint(fields.get(1)?)?;
    let (remote, remote_port) = endpoint(fields.get(2)?)?;
    let (sending, received) = fields.get(4)?.split_once(':')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let mut object = Map::new();
    object.insert("local_address".into(), local.to_string().into());
    object.insert("local_port".into(), local_port.into());
    object.insert("remote_address".into(), remote.to_string().into());
    object.insert("remote_port".into(), remote_port.into());
    object.insert("state".into(), state(u8::from_str_radix(fields.get(3)?, 16).ok()?).into());
    object.insert("unsent_bytes".into(), hex(sending)?.into());
    object.insert("unread_bytes".into(), hex(received)?.into());
    object.insert("uid".into(), fields.get(7)?.parse::<u32>().ok()?.into());
    Some(Socket { inode: fields.get(9)?.parse().ok()?, fields: object })
}

/// An address as words of this machine in hex, and a port in hex.
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn tcp_state(number: u8) -> &'static str {
    match number {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        12 => "NEW_SYN_RECV",
        _ => "unknown",
    }
}

/// `sk references type protocol interface running memory uid inode`
fn packet(line: &[u8]) -> Option<Socket> {
    let text = std::str::from_utf8(line).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut object = Map::new();
    let kind = match *fields.get(2)? {
        "2" => "SOCK_DGRAM",
        "3" => "SOCK_RAW",
        "10" => "SOCK_PACKET",
        other => other,
    };
    object.insert("type".into(), kind.into());
    object.insert("ethertype".into(), format!("0x{}", fields.get(3)?).into());
    object.insert("interface".into(), fields.get(4)?.parse::<u32>().ok()?.into());
    object.insert("uid".into(), fields.get(7)?.parse::<u32>().ok()?.into());
    Some(Socket { inode: fields.get(8)?.parse().ok()?, fields: object })
}

/// `num: references protocol flags type state inode [path]`: the path is whatever somebody chose.
fn unix(line: &[u8]) -> Option<Socket> {
    let mut rest = line;
    let mut fields = Vec::new();
    for _ in 0..7 {
        rest = &rest[rest.iter().position(|byte| *byte != b' ')?..];
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        fields.push(std::str::from_utf8(&rest[..end]).ok()?);
        rest = &rest[end..];
    }
    let mut object = Map::new();
    let kind = match fields[4] {
        "0001" => "SOCK_STREAM",
        "0002" => "SOCK_DGRAM",
        "0005" => "SOCK_SEQPACKET",
        other => other,
    };
    object.insert("type".into(), kind.into());
    // __SO_ACCEPTCON
    let listens = u32::from_str_radix(fields[3], 16).ok()? & 0x1_0000 != 0;
    object.insert("state".into(), if listens { "LISTEN" } else { unix_state(fields[5]) }.into());
    if let Some(path) = rest.strip_prefix(b" ").filter(|path| !path.is_empty()) {
        text::put(&mut object, "path", path, 256);
    }
    Some(Socket { inode: fields[6].parse().ok()?, fields: object })
}

fn unix_state(number: &str) -> &'static str {
    match number {
        "01" => "UNCONNECTED",
        "02" => "CONNECTING",
        "03" => "CONNECTED",
        "04" => "DISCONNECTING",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_every_table_are_understood() {
        let socket =
            tcp(b"   1: 0100007F:0050 0200000A:01BB 01 0000000A:00000002 02:0000 00  1000 0 77 1 ffff 20 4")
                .unwrap();
        assert_eq!(socket.inode, 77);
        assert_eq!(
            (&socket.fields["remote_address"], &socket.fields["remote_port"]),
            (&"10.0.0.2".into(), &443.into())
        );
        assert_eq!(
            (&socket.fields["state"], &socket.fields["unsent_bytes"]),
            (&"ESTABLISHED".into(), &10.into())
        );
        let socket = datagrams(
            b"  9: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 5 2 0 0",
        )
        .unwrap();
        assert_eq!(
            (&socket.fields["local_address"], &socket.fields["local_port"]),
            (&"::1".into(), &53.into())
        );
        let socket = packet(b"ffff888 3      3    0003   2     1 0      0      4242").unwrap();
        assert_eq!((socket.inode, &socket.fields["ethertype"]), (4242, &"0x0003".into()));
        let socket = unix(b"0000000000000000: 00000002 00000000 00010000 0001 01 999 /run/a b\xff").unwrap();
        assert_eq!(
            (socket.inode, &socket.fields["path"], &socket.fields["state"]),
            (999, &"/run/a b\\xff".into(), &"LISTEN".into())
        );
        let nameless = unix(b"0000000000000000: 00000003 00000000 00000000 0001 03 998").unwrap();
        assert!(!nameless.fields.contains_key("path"));
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_harm(line: Vec<u8>, words in "[0-9A-Fa-f: ]{0,120}") {
            for (_, parse) in TABLES {
                parse(&line);
                parse(words.as_bytes());
            }
        }
    }
}
