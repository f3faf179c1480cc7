//! A model that runs elsewhere, as a classifier without gradients.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use robustness::{Access, Classifier, Cotangent, OneOutput, PullBack, Samples, Shape};
use sha2::{Digest, Sha256};

use crate::{
    Answers, Description, Options, Transport,
    error::{Error, Result},
    http::Http,
    process::Process,
};

/// The wait before a server is asked again, which doubles each time.
const PAUSE: Duration = Duration::from_millis(500);

/// A model that runs elsewhere.
#[derive(Debug)]
pub struct Served {
    name: String,
    description: Description,
    options: Options,
    transport: Mutex<Box<dyn Transport>>,
    counts: Counts,
}

/// What was asked so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Images that were answered.
    pub queries: u64,
    /// Requests that they came in.
    pub requests: u64,
    /// Requests that had no answer and were asked again.
    pub retries: u64,
    /// Seconds of waiting for answers.
    pub seconds: f64,
    /// Answers with logits that are no finite numbers.
    pub not_finite: u64,
}

#[derive(Debug, Default)]
struct Counts {
    queries: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
    microseconds: AtomicU64,
    not_finite: AtomicU64,
}

impl Served {
    /// The program of the command line `command`, see [`process`](crate::process): words as a shell
    /// reads them, without a shell. It is started now, and ends with this value.
    ///
    /// # Errors
    /// A program that does not start, or does not say what it takes and gives.
    pub fn exec(command: &str, options: Options) -> Result<Self> {
        let process = Process::new(command, options.timeout)?;
        Self::open(format!("exec {command}"), Box::new(process), options)
    }

    /// The model behind `url`, see [`http`](crate::http).
    ///
    /// # Errors
    /// A server that cannot be reached, or does not say what it takes and gives.
    pub fn connect(url: &str, options: Options) -> Result<Self> {
        let known = ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme));
        if !known {
            let problem = "expected http://HOST:PORT/PATH or https://HOST/PATH".into();
            return Err(Error::Option { who: url.to_owned(), problem });
        }
        let http = Http::new(url, &options);
        Self::open(http.who().to_owned(), Box::new(http), options)
    }

    fn open(name: String, mut transport: Box<dyn Transport>, options: Options) -> Result<Self> {
        let retries = AtomicU64::new(0);
        let description = again(&options, &retries, || transport.describe())?;
        if let Some(given) = &options.normalisation {
            let channels = description.shape[0];
            let fits = given.mean.len() == channels && given.std.len() == channels;
            let usable = |v: &f32| v.is_finite() && *v > 0.0;
            if !fits || !given.mean.iter().all(|v| v.is_finite()) || !given.std.iter().all(usable) {
                let problem = format!(
                    "`mean` and `std`: expected {channels} numbers each, one a channel, `std` above 0"
                );
                return Err(Error::Option { who: name, problem });
            }
        }
        if let (Some(said), true) = (options.one_output, description.classes > 1) {
            let problem = format!(
                "it has {} outputs an image, not one that is a {said} of class 1",
                description.classes
            );
            return Err(Error::Option { who: name, problem });
        }
        let counts = Counts { retries, ..Counts::default() };
        Ok(Self { name, description, options, transport: Mutex::new(transport), counts })
    }

    /// `exec COMMAND`, or the URL without passwords and queries.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model says of itself.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What its one output was said to be.
    pub fn one_output(&self) -> Option<OneOutput> {
        self.options.one_output
    }

    /// What was asked so far.
    pub fn cost(&self) -> Cost {
        let Counts { queries, requests, retries, microseconds, not_finite } = &self.counts;
        Cost {
            queries: queries.load(Relaxed),
            requests: requests.load(Relaxed),
            retries: retries.load(Relaxed),
            seconds: microseconds.load(Relaxed) as f64 * 1e-6,
            not_finite: not_finite.load(Relaxed),
        }
    }

    /// SHA-256 of the answers to all `samples`, to the bit: what can be known of which model it is.
    ///
    /// # Errors
    /// A model or images that fail.
    pub fn digest(&self, samples: &dyn Samples, batch: usize) -> robustness::Result<String> {
        let positions: Vec<usize> = (0..samples.len()).collect();
        let mut hash = Sha256::new();
        for some in positions.chunks(batch.max(1)) {
            let logits = self.logits(&samples.pixels(some)?)?;
            hash.update(logits.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Answers to the images `x`, at most a batch.
    fn ask(&self, x: &[f32], n: usize) -> Result<Vec<f32>> {
        let mut transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        let normalised = self.options.normalisation.as_ref().map(|given| {
            let plane = self.description.shape[1] * self.description.shape[2];
            let channels = given.mean.len();
            let of = |i: usize, x: f32| {
                let channel = i / plane % channels;
                (x - given.mean[channel]) / given.std[channel]
            };
            x.iter().enumerate().map(|(i, &x)| of(i, x)).collect::<Vec<f32>>()
        });
        let x = normalised.as_deref().unwrap_or(x);
        let started = Instant::now();
        let answer =
            again(&self.options, &self.counts.retries, || transport.ask(x, n, &self.description));
        let spent = started.elapsed().as_micros();
        self.counts.microseconds.fetch_add(u64::try_from(spent).unwrap_or(u64::MAX), Relaxed);
        let answer = answer?;
        self.counts.queries.fetch_add(n as u64, Relaxed);
        self.counts.requests.fetch_add(1, Relaxed);
        self.read(answer)
    }

    /// An answer as rows of logits.
    fn read(&self, answer: Vec<f32>) -> Result<Vec<f32>> {
        let classes = self.description.classes;
        if self.description.answers == Answers::Labels {
            let wrong = |problem| Error::Answer { who: self.name.clone(), problem };
            self.description.check_labels(&answer).map_err(wrong)?;
            let mut rows = vec![0.0; answer.len() * classes];
            for (row, &label) in rows.chunks_mut(classes).zip(&answer) {
                row[label as usize] = 1.0;
            }
            return Ok(rows);
        }
        let broken = |row: &&[f32]| row.iter().any(|v| !v.is_finite());
        let count = answer.chunks(classes).filter(broken).count();
        self.counts.not_finite.fetch_add(count as u64, Relaxed);
        if classes > 1 {
            return Ok(answer);
        }
        let said = self.options.one_output.unwrap_or(OneOutput::Logit);
        let log_odds = answer.iter().map(|&value| said.log_odds(value));
        Ok(log_odds.flat_map(|z| [if z.is_nan() { z } else { 0.0 }, z]).collect())
    }
}

impl Classifier for Served {
    fn shape(&self) -> Shape {
        self.description.seen()
    }

    fn access(&self) -> Access {
        self.description.answers.access()
    }

    fn queries(&self) -> Option<u64> {
        Some(self.counts.queries.load(Relaxed))
    }

    fn logits(&self, x: &[f32]) -> robustness::Result<Vec<f32>> {
        let width = self.shape().pixels();
        let most = [self.description.batch, self.options.batch].into_iter().flatten().min();
        let batch = most.unwrap_or(usize::MAX / width).max(1);
        let mut rows = Vec::with_capacity(x.len() / width * self.shape().classes);
        for some in x.chunks(batch * width) {
            let answer = self.ask(some, some.len() / width);
            rows.extend(answer.map_err(robustness::Error::classifier)?);
        }
        Ok(rows)
    }

    fn pull_back(&self, _: &[f32], _: &mut Cotangent<'_>) -> robustness::Result<PullBack> {
        let access = self.access();
        Err(robustness::Error::Access {
            attack: "a gradient attack".into(),
            needs: Access::Gradients,
            access,
        })
    }
}

/// Does `work` until it succeeds, at most `options.retries` times more.
fn again<T>(
    options: &Options,
    retries: &AtomicU64,
    mut work: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut pause = PAUSE;
    let mut times = 1;
    loop {
        let error = match work() {
            Err(error) if error.passes() => error,
            done => return done,
        };
        if times > options.retries {
            return Err(if times == 1 {
                error
            } else {
                Error::Exhausted { last: Box::new(error), times }
            });
        }
        tracing::warn!("{error}; asking again");
        let wait = match error {
            Error::Busy { wait, .. } => wait,
            _ => None,
        };
        thread::sleep(wait.unwrap_or(pause));
        pause *= 2;
        times += 1;
        retries.fetch_add(1, Relaxed);
    }
}
