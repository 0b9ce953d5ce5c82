//! The agent's sockets: all of a network namespace that is its own; of one that it shares, those that its processes hold.

mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use serde_json::{Value, json};

use crate::kernel::namespaces::inside;

use super::part::Paper;
use super::processes;
use super::whereabouts::{Net, Whereabouts};
use table::{Socket, TABLES};

/// Sockets in one bundle; those beyond are counted.
const MOST_SOCKETS: usize = 20_000;
/// Descriptors that are looked at to tell who holds a socket.
const MOST_DESCRIPTORS: usize = 200_000;
/// A longer line of a table is cut: a path of a Unix socket has at most 108 bytes.
const LINE_BYTES: u64 = 4096;

/// Writes the part.
pub(super) fn write(paper: &Paper, where_: &Whereabouts) -> Result<(), String> {
    where_.unknown.iter().for_each(|why| paper.lacks(why.clone()));
    if where_.nets.is_empty() && where_.shared.is_empty() {
        if where_.cgroups.is_empty() {
            paper.cannot_be_known("no network namespace of the agent is known");
        } else {
            paper.fact("note", "no process of the agent's cgroup is there, so no socket is its");
        }
        return Ok(());
    }
    let holders = processes::sockets_of(&processes::pids(where_), MOST_DESCRIPTORS, paper);
    let mut counts = Counts::default();
    for net in &where_.nets {
        list(paper, net, &holders, false, &mut counts);
    }
    for net in &where_.shared {
        list(paper, net, &holders, true, &mut counts);
    }
    if !where_.shared.is_empty() {
        paper.fact(
            "note",
            "of a shared namespace only sockets that the agent's processes hold: connections that are being closed have no \
             holder any more",
        );
    }
    paper.fact(
        "counts",
        counts
            .by_table
            .iter()
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect::<serde_json::Map<_, _>>(),
    );
    if counts.beyond > 0 {
        paper.lacks(format!("{} sockets beyond the first {MOST_SOCKETS} are counted only", counts.beyond));
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    by_table: BTreeMap<&'static str, u64>,
    listed: usize,
    beyond: u64,
}

fn list(paper: &Paper, net: &Net, holders: &BTreeMap<u64, u32>, held_only: bool, counts: &mut Counts) {
    let read = inside(&net.file, || {
        for (name, parse) in TABLES {
            // A table that this kernel does not have is no loss.
            let Ok(file) = File::open(format!("/proc/thread-self/net/{name}")) else { continue };
            let each = |socket: Socket| {
                let holder = holders.get(&socket.inode);
                if held_only && holder.is_none() {
                    return;
                }
                *counts.by_table.entry(name).or_default() += 1;
                if counts.listed >= MOST_SOCKETS {
                    counts.beyond += 1;
                    return;
                }
                counts.listed += 1;
                let mut item = socket.fields;
                item.insert("table".into(), name.into());
                item.insert("network_namespace".into(), net.inode.into());
                item.insert("inode".into(), socket.inode.into());
                item.insert("pid".into(), holder.map_or(Value::Null, |pid| (*pid).into()));
                paper.item(item.into());
            };
            if let Err(why) = lines(paper, file, parse, each) {
                paper.lacks(format!("the table of {name} sockets {why}"));
            }
        }
    });
    if let Err(error) = read {
        paper.lacks(format!("network namespace {}: {error:#}", net.inode));
    }
}

/// Hands over the sockets of one table, line by line.
fn lines(
    paper: &Paper,
    file: impl Read,
    parse: fn(&[u8]) -> Option<Socket>,
    mut each: impl FnMut(Socket),
) -> Result<(), String> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut line = Vec::new();
    let mut is_heading = true;
    loop {
        line.clear();
        let read = reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(|error| format!("cannot be read: {error}"))? == 0 {
            return Ok(());
        }
        if paper.is_late() {
            return Err("was cut: time was up".into());
        }
        if !std::mem::take(&mut is_heading)
            && let Some(socket) = parse(line.strip_suffix(b"\n").unwrap_or(&line))
        {
            each(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::part::Status;
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    fn own() -> Net {
        let file = File::open("/proc/thread-self/ns/net").unwrap();
        Net { inode: 1, file, because: String::new() }
    }

    #[test]
    fn sockets_of_ones_own_processes_are_told_with_their_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let where_ = Whereabouts {
            members: [std::process::id()].into(),
            cgroups: vec!["x".into()],
            shared: vec![own()],
            ..Whereabouts::default()
        };
        let paper = Paper::new(Duration::from_secs(60), 8 << 20);
        write(&paper, &where_).unwrap();
        let part = paper.finish("sockets.json", Ok(()), Duration::ZERO);
        assert_eq!((part.status, &part.reasons), (Status::Complete, &Vec::new()));
        let document: Value = serde_json::from_slice(&part.bytes).unwrap();
        let items = document["items"].as_array().unwrap();
        let find = |table: &str, port: u16, state: &str| {
            items
                .iter()
                .find(|item| item["table"] == table && item["local_port"] == port && item["state"] == state)
        };
        let listening = find("tcp", to.port(), "LISTEN").unwrap();
        assert_eq!(
            (&listening["local_address"], &listening["pid"]),
            (&"127.0.0.1".into(), &std::process::id().into())
        );
        let connected = find("tcp", stream.local_addr().unwrap().port(), "ESTABLISHED").unwrap();
        assert_eq!(
            (&connected["remote_address"], &connected["remote_port"]),
            (&"127.0.0.1".into(), &to.port().into())
        );
        let datagrams = find("udp6", udp.local_addr().unwrap().port(), "UNCONNECTED").unwrap();
        assert_eq!(datagrams["local_address"], "::1");
    }

    #[test]
    fn a_table_of_a_hundred_thousand_is_cut_in_time_and_counted() {
        let line =
            "  0: 0100007F:0050 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000 0 77 1\n";
        let text = format!("heading\n{}", line.repeat(100_000));
        let paper = Paper::new(Duration::from_secs(60), 100_000);
        let mut seen = 0;
        let parse = TABLES.iter().find(|(name, _)| *name == "tcp").unwrap().1;
        lines(&paper, text.as_bytes(), parse, |_| seen += 1).unwrap();
        assert_eq!(seen, 100_000);
        let late = Paper::new(Duration::ZERO, 100_000);
        assert!(lines(&late, text.as_bytes(), parse, |_| ()).is_err());
    }
}
