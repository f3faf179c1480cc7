//! A server that misbehaves on demand. It speaks HTTP over a plain socket: a server library would
//! not break off in the middle of a body.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    /// Serves the file, honouring `Range`.
    Serve,
    /// Serves the whole file whatever is asked for.
    NoRange,
    /// Announces all (of the range), sends that many bytes, hangs up.
    Break(usize),
    /// Sends that many bytes, then nothing more for as long as the client waits.
    Stall(usize),
    /// Sends a few bytes at a time for as long as the client listens.
    Drip,
    /// Sends without announcing how much, for as long as the client listens.
    Endless,
    /// Hangs up at once.
    HangUp,
    Status(u16),
    /// Says "partial" from another byte than asked for.
    WrongRange,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// The `Range` header of each request.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Serves `content`, going through `acts`; the last is repeated.
    pub(super) fn new(content: &[u8], acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (ranges, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (content, acts) = (content.to_vec(), acts.to_vec());
        let (seen, ended) = (Arc::clone(&ranges), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let act = acts[i.min(acts.len() - 1)];
                // A client that hangs up first is part of the game.
                let _ = answer(stream.unwrap(), &content, act, &seen);
            }
        });
        Self { address, ranges, stop, thread: Some(thread) }
    }

    pub(super) fn ranges(&self) -> Vec<Option<String>> {
        self.ranges.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    act: Act,
    seen: &Mutex<Vec<Option<String>>>,
) -> io::Result<()> {
    let mut range = None;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: ") {
            range = Some(value.to_owned());
        }
    }
    seen.lock().unwrap().push(range.clone());
    let asked =
        range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let from = asked.filter(|_| act != Act::NoRange).unwrap_or(0);
    match act {
        Act::HangUp => return Ok(()),
        Act::Status(code) => {
            return write!(
                stream,
                "HTTP/1.1 {code} Reason\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
            );
        }
        _ if from >= content.len() => {
            return write!(
                stream,
                "HTTP/1.1 416 Range\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        _ => {}
    }
    if act == Act::Endless {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        loop {
            stream.write_all(content)?;
        }
    }
    let body = &content[from..];
    if asked.is_some() && act != Act::NoRange {
        let claimed = if act == Act::WrongRange { from + 1 } else { from };
        write!(
            stream,
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {claimed}-{}/{}\r\n",
            content.len() - 1,
            content.len()
        )?;
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    if act == Act::Drip {
        for few in body.chunks(50) {
            stream.write_all(few)?;
            thread::sleep(Duration::from_millis(10));
        }
    }
    let sent = if let Act::Break(n) | Act::Stall(n) = act { n.min(body.len()) } else { body.len() };
    stream.write_all(&body[..sent])?;
    stream.flush()?;
    if matches!(act, Act::Stall(_)) {
        // Until the client hangs up.
        io::copy(&mut stream, &mut io::sink())?;
    }
    Ok(())
}
