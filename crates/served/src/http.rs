//! A model behind a URL.
//!
//! `GET URL` says what it is, in one of two forms:
//!
//! - The plain form, `{"shape": [3, 32, 32], "classes": 10, "answers": "logits", "batch": 256}`, as a
//!   [program](crate::process) says it. Images go to `POST URL` as an npy array (f32 of shape
//!   `[n, 3, 32, 32]`, `Content-Type: application/x-npy`); the answer is an npy array: floating-point
//!   logits `[n, 10]`, or whole numbers `[n]` where `answers` is `labels`.
//! - The Open Inference Protocol, version 2 (Triton, KServe, MLServer, TorchServe, OpenVINO Model
//!   Server): URL is `http://HOST:PORT/v2/models/NAME`, images go to `POST URL/infer` in JSON.
//!
//! Time-outs, broken connections and the statuses 408, 429, 502, 503 and 504 are tried again, after
//! the time that `Retry-After` asks for; other statuses end the work, with the first line of what the
//! server says.

use std::time::Duration;

use serde_json::Value;
use ureq::{
    Agent,
    http::{HeaderMap, Response, StatusCode},
};

use crate::{
    Description, Options, Transport,
    error::{Error, Result, line_of},
    inference::{Metadata, Names},
    npy,
};

/// Most bytes of a description or of an error's text.
const TEXT: u64 = 1 << 20;
/// Most bytes of a value in an answer: a number in JSON.
const VALUE: u64 = 64;
/// Longest wait that a server may ask for.
const LONGEST_WAIT: u64 = 300;

/// A URL and how it is asked.
pub(crate) struct Http {
    who: String,
    url: String,
    agent: Agent,
    options: Options,
    /// The tensors of the inference protocol, where the server speaks that.
    names: Option<Names>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers hold passwords.
        f.debug_struct("Http").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Http {
    pub fn new(url: &str, options: &Options) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            .user_agent(concat!("sora/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let (who, url) = (without_password(url), url.trim_end_matches('/').to_owned());
        Self { who, url, agent, options: options.clone(), names: None }
    }

    /// The URL without passwords.
    pub fn who(&self) -> &str {
        &self.who
    }

    fn get(&self) -> Result<Vec<u8>> {
        let mut request = self.agent.get(&self.url);
        for (name, value) in &self.options.headers {
            request = request.header(name, value);
        }
        self.body(request.call(), TEXT)
    }

    fn post(&self, url: &str, kind: &str, body: &[u8], most: u64) -> Result<Vec<u8>> {
        let mut request = self.agent.post(url).header("Content-Type", kind).header("Accept", kind);
        for (name, value) in &self.options.headers {
            request = request.header(name, value);
        }
        self.body(request.send(body), most)
    }

    /// The body of an answer of at most `most` bytes.
    fn body(
        &self,
        answer: std::result::Result<Response<ureq::Body>, ureq::Error>,
        most: u64,
    ) -> Result<Vec<u8>> {
        let mut answer = answer.map_err(|e| self.broken(e))?;
        let (status, wait) = (answer.status(), wait(answer.headers()));
        let most = if status.is_success() { most } else { TEXT };
        let body = answer.body_mut().with_config().limit(most).read_to_vec();
        let who = self.who.clone();
        if busy(status) {
            return Err(Error::Busy { who, status: status.to_string(), wait });
        }
        let body = body.map_err(|e| self.broken(e))?;
        if status.is_success() {
            return Ok(body);
        }
        Err(Error::Failed { who, text: format!("{status}: {}", words(&body)) })
    }

    fn broken(&self, error: ureq::Error) -> Error {
        let who = self.who.clone();
        match error {
            ureq::Error::Timeout(_) => Error::Late { who, after: self.options.timeout },
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Error::Option { who, problem: format!("not a URL that can be asked ({error})") }
            }
            ureq::Error::BodyExceedsLimit(most) => {
                Error::Answer { who, problem: format!("is longer than {most} bytes") }
            }
            ureq::Error::HostNotFound => Error::Gone { who, how: "the host was not found".into() },
            ureq::Error::ConnectionFailed => {
                Error::Gone { who, how: "the connection was refused".into() }
            }
            other => Error::Gone { who, how: format!("the connection broke ({other})") },
        }
    }
}

impl Transport for Http {
    fn describe(&mut self) -> Result<Description> {
        let body = self.get()?;
        let who = self.who.clone();
        let wrong = |problem| Error::Description { who, problem };
        let text = String::from_utf8_lossy(&body);
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if value.get("inputs").is_none() {
            self.names = None;
            return Description::read(&text).map_err(wrong);
        }
        let metadata: Metadata = match serde_json::from_value(value) {
            Ok(metadata) => metadata,
            Err(e) => return Err(wrong(format!("is not one of the inference protocol: {e}"))),
        };
        let (description, names) = metadata.read(&self.options).map_err(wrong)?;
        self.names = Some(names);
        Ok(description)
    }

    fn ask(&mut self, x: &[f32], n: usize, description: &Description) -> Result<Vec<f32>> {
        let [c, h, w] = description.shape;
        let values = n as u64 * description.classes as u64;
        let most = TEXT + VALUE * values;
        let (found, who) = match &self.names {
            None => {
                let request = npy::write(&[n, c, h, w], x);
                let body = self.post(&self.url, "application/x-npy", &request, most)?;
                (npy::read(&body), &self.who)
            }
            Some(names) => {
                let request = names.request(x, [n, c, h, w]).map_err(|e| Error::Option {
                    who: self.who.clone(),
                    problem: format!("images that have no JSON form: {e}"),
                })?;
                let url = format!("{}/infer", self.url);
                let body = self.post(&url, "application/json", &request, most)?;
                (names.answer(&body), &self.who)
            }
        };
        let fitting = found.and_then(|(shape, values)| {
            description.fits(&shape, n)?;
            Ok(values)
        });
        fitting.map_err(|problem| Error::Answer { who: who.clone(), problem })
    }
}

/// Statuses of a server that may answer later.
fn busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

/// Seconds that `Retry-After` asks for; a date is not read.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?;
    Some(Duration::from_secs(text.trim().parse::<u64>().ok()?.min(LONGEST_WAIT)))
}

/// What a server says of its failure: a field of JSON, or the first line.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let field = ["error", "detail", "message"].iter().find_map(|key| json.get(key)?.as_str());
    line_of(field.unwrap_or(&text))
}

/// `url` without the name and password before the host, for messages and records.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    // A query may hold a key.
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_messages() {
        for (url, shown) in [
            ("http://me:secret@host:80/v2/m?key=secret", "http://host:80/v2/m"),
            ("https://host", "https://host"),
            ("host/path", "host/path"),
            ("http://a@b@c/d@e", "http://c/d@e"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let options = Options {
            headers: vec![("Authorization".into(), "secret".into())],
            ..Options::default()
        };
        let http = Http::new("http://me:secret@host/", &options);
        assert!(!format!("{http:?}").contains("secret"));
    }

    #[test]
    fn servers_words_are_one_line() {
        assert_eq!(words(br#"{"error": "no such\nmodel"}"#), "no such");
        assert_eq!(words(b"\n<html>\x1b[31m\n"), "<html>[31m");
        assert_eq!(words(b""), "(no words)");
    }
}
