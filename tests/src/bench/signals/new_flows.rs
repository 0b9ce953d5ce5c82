//! Ten thousand new connections a second, each with a request that is refused: nothing of them is lost uncounted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::super::row::Row;
use super::super::scale::cpu_seconds;
use super::super::setup::{PATIENCE, agent, config, wait_until_attached};
use crate::daemon::Daemon;
use crate::lab::Lab;
use crate::traffic::task::{Stop, Task};

/// Connections a second.
const RATE: u64 = 10_000;
/// Clients that share the rate: each waits for its answers.
const CLIENTS: u64 = 4;
const LENGTH: Duration = Duration::from_secs(10);
/// Ports of the server, so that the client's are not used up.
const PORTS: u16 = 8;
const ANSWER: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

pub(super) fn rows() -> Result<Vec<Row>> {
    let lab = Lab::routed(1)?;
    let daemon = Daemon::start(lab.host(), &config(1))?;
    wait_until_attached(&daemon, 1)?;
    let pid = daemon.pid().context("the daemon has ended")?;
    let servers = (0..PORTS).map(|port| serve(&lab, 7000 + port)).collect::<Result<Vec<_>>>()?;
    let (start, before) = (Instant::now(), cpu_seconds(pid)?);
    let to = lab.world().v4.into();
    let clients = (0..CLIENTS)
        .map(|client| {
            Task::start(&lab.agent(0).namespace, "connections", LENGTH + PATIENCE, move |stop| {
                connect(to, client, stop)
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let mut made = 0;
    for client in clients {
        made += client.wait()?;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let busy = (cpu_seconds(pid)? - before) / elapsed;
    drop(servers);
    let told = daemon.agent(&agent(0))?;
    let rate = made as f64 / elapsed;
    Ok(vec![
        Row::at_least(
            "signals",
            "new connections, each with a request that is refused",
            format!("{rate:.0} a second for {elapsed:.0} s"),
            rate,
            RATE as f64 * 0.98,
            " a second",
        ),
        lost("requests", &told["totals"]["requests"], made)?,
        lost("refusals", &told["signals"]["auth"]["http_401"], made)?,
        lost("response times", &told["totals"]["responses"], made)?,
        Row::at_most(
            "signals",
            "CPU of the daemon meanwhile",
            format!("{:.1} % of a core", busy * 100.0),
            busy,
            0.5,
            " of a core",
        ),
    ])
}

fn lost(what: &str, counted: &Value, made: u64) -> Result<Row> {
    let counted = counted.as_u64().with_context(|| format!("{what}: {counted} is not a number"))?;
    let off = made.abs_diff(counted) as f64;
    let measured = format!("{counted} of {made}");
    Ok(Row::at_most("signals", format!("{what} counted"), measured, off, 0.0, " lost"))
}

/// A server that refuses one request of each connection.
fn serve(lab: &Lab, port: u16) -> Result<Task<Result<()>>> {
    let address = SocketAddr::new(lab.world().v4.into(), port);
    let listener = lab.world().namespace.run(|| -> Result<TcpListener> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    })?;
    Task::start(&lab.world().namespace, "a server", LENGTH + PATIENCE, move |stop| {
        while !stop.now() {
            match listener.accept() {
                Ok((connection, _)) => refuse(connection)?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_micros(100));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

fn refuse(mut connection: TcpStream) -> Result<()> {
    connection.set_nonblocking(false)?;
    let _ = connection.read(&mut [0; 256])?;
    connection.write_all(ANSWER)?;
    Ok(())
}

/// Makes one client's share of the connections; how many.
fn connect(to: std::net::IpAddr, client: u64, stop: &Stop) -> Result<u64> {
    let start = Instant::now();
    let mut made = 0;
    while start.elapsed() < LENGTH && !stop.now() {
        let due = (start.elapsed().as_secs_f64() * (RATE / CLIENTS) as f64) as u64;
        if made >= due {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        let mut connection =
            TcpStream::connect((to, 7000 + ((made + 2 * client) % u64::from(PORTS)) as u16))?;
        // A reset at the end, so that no port has to rest.
        SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
        connection.write_all(REQUEST)?;
        let mut answer = [0; 256];
        let count = connection.read(&mut answer)?;
        ensure!(answer[..count].starts_with(b"HTTP/1.1 401"), "another answer");
        made += 1;
    }
    Ok(made)
}
