//! A TCP connection that ends with its time, and that knows when its bytes have left.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockRef;

use crate::netns::Namespace;
use crate::traffic::task::Stop;
use crate::traffic::{TICK, timed_out};

mod queue {
    nix::ioctl_read_bad!(bytes_not_sent, libc::SIOCOUTQNSD, libc::c_int);
    nix::ioctl_read_bad!(bytes_not_acknowledged, libc::TIOCOUTQ, libc::c_int);
}

/// One side of a connection. Reading and writing block, but not beyond the time to end: then they time out.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    stop: Stop,
}

impl Peer {
    /// Takes over a connected stream. What is written to it leaves at once.
    pub fn new(stream: TcpStream, stop: &Stop) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        Ok(Self { stream, stop: stop.clone() })
    }

    /// Connects from inside `namespace`; everything with this connection together takes at most `longest`.
    pub fn connect(namespace: &Namespace, to: SocketAddr, longest: Duration) -> io::Result<Self> {
        let stream = namespace.run(|| TcpStream::connect_timeout(&to, longest))?;
        Self::new(stream, &Stop::after(longest))
    }

    /// The port on this side: what tells this connection's frames from others.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    /// Writes all of `bytes` and waits until they have left, so that what is written next begins a new segment.
    pub fn write_segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)?;
        self.wait_until_empty(|fd, count| {
            // SAFETY: the descriptor is an open TCP socket, and the integer lives through the call.
            unsafe { queue::bytes_not_sent(fd, count) }
        })
    }

    /// Waits until the other side has acknowledged everything: it has got what was written.
    pub fn wait_until_acknowledged(&self) -> io::Result<()> {
        self.wait_until_empty(|fd, count| {
            // SAFETY: the descriptor is an open TCP socket, and the integer lives through the call.
            unsafe { queue::bytes_not_acknowledged(fd, count) }
        })
    }

    /// Says that nothing more will be written.
    pub fn close_writing(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// Waits until the other side closes; what it still says is thrown away.
    pub fn wait_for_close(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// Sleeps, or less when it is time to end before.
    pub fn pause(&self, pause: Duration) {
        self.stop.sleep(pause);
    }

    /// Ends the connection with a reset instead of a close.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    fn wait_until_empty(&self, left: impl Fn(i32, &mut i32) -> nix::Result<i32>) -> io::Result<()> {
        loop {
            let mut count = 0;
            left(self.stream.as_raw_fd(), &mut count)?;
            if count == 0 {
                return Ok(());
            }
            if self.stop.now() {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    fn patiently<T>(&mut self, mut work: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match work(&mut self.stream) {
                Err(error) if timed_out(&error) && !self.stop.now() => {}
                Err(error) if timed_out(&error) => return Err(ErrorKind::TimedOut.into()),
                result => return result,
            }
        }
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(buffer))
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
