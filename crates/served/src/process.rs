//! A program that reads images and writes its answers (version 1 of the protocol).
//!
//! The program is started once, with pipes for its standard input and output; what it says on
//! standard error goes where this program's goes. Numbers are little-endian. All lines are JSON and
//! end with a line feed.
//!
//! 1. When it is ready it writes a line that says what it takes and gives:
//!    `{"protocol": 1, "shape": [3, 32, 32], "classes": 10, "answers": "logits", "batch": 256}`.
//!    `answers` is `logits` or `labels`; `batch`, the most images at a time, may be left out. Lines
//!    before it that do not begin with `{` are passed on to standard error.
//! 2. It reads a line `{"id": 1, "shape": [n, 3, 32, 32]}` and, behind it, n x 3 x 32 x 32 f32: the
//!    images row by row, pixels in [0, 1].
//! 3. It writes `{"id": 1, "shape": [n, 10]}` and, behind it, n x 10 f32: the logits; a program that
//!    answers with labels writes `{"id": 1, "shape": [n]}` and n i32, or writes
//!    `{"id": 1, "error": "what went wrong"}` and nothing behind it.
//! 4. It goes on with 2 until its input ends, and then ends.
//!
//! A program that ends, or gives no answer in time, is started anew and asked again.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    Answers, Description, Transport,
    error::{Error, Result, line_of},
};

/// Longest line that is read.
const LONGEST: u64 = 1 << 16;
/// Lines before the description.
const NOISE: usize = 10_000;
/// How long a program may take to end once its input has.
const LAST: Duration = Duration::from_secs(2);

/// A program and how it is started.
#[derive(Debug)]
pub(crate) struct Process {
    who: String,
    words: Vec<String>,
    timeout: Duration,
    running: Option<Running>,
    last: u64,
}

impl Process {
    /// The program of the command line `command`: words as a shell reads them, without a shell.
    pub fn new(command: &str, timeout: Duration) -> Result<Self> {
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| Error::Command(command.to_owned()))?;
        Ok(Self { who: command.to_owned(), words, timeout, running: None, last: 0 })
    }

    /// The running program, started where there is none, and what it said of itself now.
    fn running(&mut self) -> Result<(&mut Running, Option<Description>)> {
        let mut said = None;
        if self.running.is_none() {
            let running = Running::start(&self.words)
                .map_err(|source| Error::Start { who: self.who.clone(), source })?;
            let running = self.running.insert(running);
            match running.description.recv_timeout(self.timeout) {
                Ok(Ok(text)) => said = Some(text),
                Ok(Err(broken)) => return Err(self.end(broken)),
                Err(_) => return Err(self.end(Broken::Late)),
            }
        }
        let said = said.map(|text| Description::read(&text)).transpose().map_err(|problem| {
            self.running = None;
            Error::Description { who: self.who.clone(), problem }
        })?;
        let gone = || Error::Gone { who: self.who.clone(), how: "ended".into() };
        Ok((self.running.as_mut().ok_or_else(gone)?, said))
    }

    /// Ends the program, which is of no use any more; what is to be said.
    fn end(&mut self, broken: Broken) -> Error {
        let who = self.who.clone();
        let status = self.running.take().and_then(|running| running.end(&broken));
        match broken {
            Broken::Late => Error::Late { who, after: self.timeout },
            Broken::End => {
                let status = status.map_or_else(
                    || "closed its output".into(),
                    |status| format!("ended ({status})"),
                );
                Error::Gone { who, how: status }
            }
            Broken::Pipe(e) => Error::Gone { who, how: format!("broke off ({e})") },
            Broken::Form(problem) => Error::Answer { who, problem },
            Broken::Said(text) => Error::Failed { who, text },
        }
    }
}

impl Transport for Process {
    fn describe(&mut self) -> Result<Description> {
        self.running = None;
        let who = self.who.clone();
        let nothing = || Error::Description { who, problem: "did not come".into() };
        self.running()?.1.ok_or_else(nothing)
    }

    fn ask(&mut self, x: &[f32], n: usize, description: &Description) -> Result<Vec<f32>> {
        self.last += 1;
        let (id, who, timeout) = (self.last, self.who.clone(), self.timeout);
        let (running, said) = self.running()?;
        if said.is_some_and(|said| said != *description) {
            self.running = None;
            let problem = "is not the one that it gave when it was started before".into();
            return Err(Error::Description { who, problem });
        }
        let [c, h, w] = description.shape;
        let mut request =
            format!("{{\"id\": {id}, \"shape\": [{n}, {c}, {h}, {w}]}}\n").into_bytes();
        request.extend(x.iter().flat_map(|v| v.to_le_bytes()));
        let expected = Expected { id, n, description: description.clone() };
        let sent =
            running.requests.send(request).is_ok() && running.expected.send(expected).is_ok();
        let answer =
            if sent { running.answers.recv_timeout(timeout) } else { Ok(Err(Broken::End)) };
        match answer {
            Ok(Ok(values)) => Ok(values),
            // It has answered: it is asked again, or not, as it is.
            Ok(Err(Broken::Said(text))) => Err(Error::Failed { who, text }),
            Ok(Err(broken)) => Err(self.end(broken)),
            Err(RecvTimeoutError::Timeout) => Err(self.end(Broken::Late)),
            Err(RecvTimeoutError::Disconnected) => Err(self.end(Broken::End)),
        }
    }
}

/// Why an answer did not come.
#[derive(Debug)]
enum Broken {
    /// In time.
    Late,
    /// The output ended.
    End,
    Pipe(io::Error),
    /// It has the wrong form; to follow "its answer".
    Form(String),
    /// The program says so itself.
    Said(String),
}

/// The answer that comes next.
struct Expected {
    id: u64,
    n: usize,
    description: Description,
}

/// A program that runs. A thread writes what it is asked, another reads what it answers, so that
/// neither a full pipe nor an empty one holds up the clock.
#[derive(Debug)]
struct Running {
    child: Child,
    requests: Sender<Vec<u8>>,
    expected: Sender<Expected>,
    description: Receiver<Result<String, Broken>>,
    answers: Receiver<Result<Vec<f32>, Broken>>,
}

impl Running {
    fn start(words: &[String]) -> io::Result<Self> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let (requests, asked) = mpsc::channel();
        let (expected, expectations) = mpsc::channel();
        let (tell, description) = mpsc::channel();
        let (give, answers) = mpsc::channel();
        let named = |name: &str| thread::Builder::new().name(name.into());
        named("to model").spawn(move || write(input, &asked))?;
        named("from model").spawn(move || {
            let mut output = BufReader::new(output);
            if tell.send(read_description(&mut output)).is_ok() {
                read_answers(&mut output, &expectations, &give);
            }
        })?;
        Ok(Self { child, requests, expected, description, answers })
    }

    /// Ends it; its status where it ended by itself.
    fn end(mut self, broken: &Broken) -> Option<String> {
        if matches!(broken, Broken::End) {
            return self.wait(LAST).map(|status| status.to_string());
        }
        self.child.kill().ok();
        self.wait(LAST);
        None
    }

    fn wait(&mut self, most: Duration) -> Option<std::process::ExitStatus> {
        let started = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if started.elapsed() < most => thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Without anyone who asks, the writer ends and closes the program's input.
        self.requests = mpsc::channel().0;
        self.expected = mpsc::channel().0;
        if self.wait(LAST).is_none() {
            self.child.kill().ok();
            self.wait(LAST);
        }
    }
}

fn write(mut input: ChildStdin, requests: &Receiver<Vec<u8>>) {
    for request in requests {
        // A program that reads no more gives no answer either: the reader says so.
        if input.write_all(&request).and_then(|()| input.flush()).is_err() {
            return;
        }
    }
}

/// A line without its end.
fn read_line(output: &mut impl BufRead) -> Result<String, Broken> {
    let mut line = Vec::new();
    let read = output.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(Broken::Pipe)?;
    match line.pop() {
        None => Err(Broken::End),
        Some(b'\n') => Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
        Some(_) if read as u64 == LONGEST => {
            Err(Broken::Form("begins with a line beyond all measure".into()))
        }
        Some(_) => Err(Broken::End),
    }
}

fn read_description(output: &mut impl BufRead) -> Result<String, Broken> {
    for _ in 0..NOISE {
        let line = read_line(output)?;
        if line.starts_with('{') {
            return Ok(line);
        }
        // What libraries print while a model is loaded.
        writeln!(io::stderr(), "{line}").ok();
    }
    Err(Broken::Form("begins with other lines than its description".into()))
}

/// What stands before an answer.
#[derive(Deserialize)]
struct Head {
    id: u64,
    #[serde(default)]
    shape: Vec<usize>,
    error: Option<String>,
}

fn read_answers(
    output: &mut impl BufRead,
    expected: &Receiver<Expected>,
    give: &Sender<Result<Vec<f32>, Broken>>,
) {
    for expected in expected {
        let answer = read_answer(output, &expected);
        // After a failure that the program tells, the next answer can follow.
        let last = !matches!(answer, Ok(_) | Err(Broken::Said(_)));
        if give.send(answer).is_err() || last {
            return;
        }
    }
}

fn read_answer(output: &mut impl BufRead, expected: &Expected) -> Result<Vec<f32>, Broken> {
    let Expected { id, n, description } = expected;
    let line = read_line(output)?;
    let head: Head = serde_json::from_str(&line).map_err(|e| {
        Broken::Form(format!(
            "begins with '{}', expected a line such as {{\"id\": {id}, \"shape\": {:?}}} ({e})",
            line_of(&line.chars().take(60).collect::<String>()),
            description.answer_shape(*n)
        ))
    })?;
    if head.id != *id {
        return Err(Broken::Form(format!("is to request {}, expected {id}", head.id)));
    }
    if let Some(text) = head.error {
        return Err(Broken::Said(line_of(&text)));
    }
    description.fits(&head.shape, *n).map_err(Broken::Form)?;
    let mut bytes = vec![0; 4 * description.answer_shape(*n).iter().product::<usize>()];
    output.read_exact(&mut bytes).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Broken::End,
        _ => Broken::Pipe(e),
    })?;
    let words = bytes.as_chunks::<4>().0.iter().copied();
    Ok(match description.answers {
        Answers::Logits => words.map(f32::from_le_bytes).collect(),
        Answers::Labels => words.map(|word| i32::from_le_bytes(word) as f32).collect(),
    })
}

/// Reads all that a program writes, from its description on: answers to two images, numbered from 0,
/// whose number of values `found` gets.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(mut output: &[u8], found: impl Fn(&Description, usize, usize)) {
    let Ok(line) = read_line(&mut output) else { return };
    let Ok(description) = Description::read(&line) else { return };
    for id in 0.. {
        let expected = Expected { id, n: 2, description: description.clone() };
        match read_answer(&mut output, &expected) {
            Ok(values) => found(&description, 2, values.len()),
            Err(Broken::Said(text)) => assert!(!text.contains(char::is_control), "{text}"),
            Err(_) => return,
        }
    }
}
