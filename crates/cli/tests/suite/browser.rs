//! Chromium for tests: single shots, and a page that is driven through the DevTools protocol, with
//! real keys.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What every start of the browser is given.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--hide-scrollbars",
];

/// Keys that tests press: name, place on the keyboard, code of Windows, text that they type.
pub const KEYS: [(&str, &str, u32, &str); 6] = [
    ("Tab", "Tab", 9, ""),
    ("Enter", "Enter", 13, "\r"),
    (" ", "Space", 32, " "),
    ("ArrowRight", "ArrowRight", 39, ""),
    ("ArrowLeft", "ArrowLeft", 37, ""),
    ("End", "End", 35, ""),
];

/// How long a browser may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser, if this machine has one; with `SORA_BROWSER=required` it must.
pub fn chromium() -> Option<&'static str> {
    let found =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| works(name));
    if found.is_none() {
        let required = std::env::var("SORA_BROWSER").is_ok_and(|value| value == "required");
        assert!(!required, "no chromium on this machine, and SORA_BROWSER=required");
        eprintln!("skipped: no chromium on this machine");
    }
    found
}

fn works(program: &str) -> bool {
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|output| output.status.success())
}

#[test]
fn a_browser_that_ends_with_an_error_is_none() {
    assert!(works("true") && !works("false") && !works("no-such-browser"));
}

/// Runs the browser on `page` with `more` arguments.
pub fn browse(browser: &str, page: &str, more: &[String]) {
    let profile = tempfile::tempdir().unwrap();
    let output = assert_cmd::Command::new(browser)
        .timeout(PATIENCE)
        .args(FLAGS)
        .arg("--virtual-time-budget=4000")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .arg(page)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A browser with one page.
pub struct Browser {
    process: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Opens `page`, a file with or without a query behind it, in a window of these pixels.
    pub fn open(browser: &str, page: &str, [width, height]: [u32; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [to, from] = ["to", "from"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // The protocol is spoken on the descriptors 3 and 4, which only a shell can give safely.
        let process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\"", browser])
            .args(FLAGS)
            .args(["--remote-debugging-pipe", "about:blank"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .envs([("TO", &to), ("FROM", &from)])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let from = messages(File::open(from).unwrap());
        let mut opened = Self { process, to, from, session: None, calls: 0, _folder: folder };
        let target = opened.call("Target.createTarget", json!({"url": "about:blank"}));
        let call = json!({"targetId": target["targetId"], "flatten": true});
        let session = opened.call("Target.attachToTarget", call)["sessionId"].clone();
        opened.session = session.as_str().map(str::to_owned);
        opened.call("Page.enable", json!({}));
        opened.call("Page.navigate", json!({"url": page}));
        opened.wait_for("Page.loadEventFired");
        opened
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        let id = self.calls;
        let answer = self.read_until(|answer| answer["id"] == id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The value of an expression on the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let call = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let found = self.call("Runtime.evaluate", call);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// Presses one of [`KEYS`].
    pub fn press(&mut self, name: &str) {
        let (name, code, number, typed) = *KEYS.iter().find(|(known, ..)| *known == name).unwrap();
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": name, "code": code, "windowsVirtualKeyCode": number,
            });
            if kind == "keyDown" && !typed.is_empty() {
                event["text"] = typed.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    fn wait_for(&mut self, event: &str) {
        self.read_until(|message| message["method"] == event);
    }

    fn read_until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left).expect("the browser has gone, or is silent");
            if is_it(&message) {
                return message;
            }
        }
    }
}

/// What comes from `file`, up to its end.
fn messages(file: File) -> Receiver<Value> {
    let (to, from) = channel();
    thread::spawn(move || {
        for message in BufReader::new(file).split(0) {
            let message = serde_json::from_slice(&message.unwrap()).unwrap();
            if to.send(message).is_err() {
                break;
            }
        }
    });
    from
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let close = json!({"id": 0, "method": "Browser.close"});
        self.to.write_all(format!("{close}\0").as_bytes()).ok();
        let until = Instant::now() + PATIENCE;
        let ended = |process: &mut Child| !matches!(process.try_wait(), Ok(None));
        while !thread::panicking() && !ended(&mut self.process) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// The address of a file.
pub fn address(file: &Path) -> String {
    format!("file://{}", file.display())
}
