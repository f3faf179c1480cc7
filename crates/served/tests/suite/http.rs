//! Servers: threads of these tests.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use robustness::{Access, Classifier};
use sora_served::{Error, Options, Served};

use super::{SHAPE, images, labels, logits};

/// What a server was asked.
struct Asked {
    method: String,
    path: String,
    /// In lower case, a line each.
    headers: String,
    body: Vec<u8>,
    /// Requests before.
    before: usize,
}

/// Status line, headers and body.
type Told = (&'static str, String, Vec<u8>);

fn read(stream: &TcpStream, before: usize) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        headers.push_str(&line.to_lowercase());
    }
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body, before })
}

/// The address of a server that tells what `answer` says; `None` hangs up.
fn serve(answer: impl Fn(&Asked) -> Option<Told> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let count = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(asked) = read(&stream, count.fetch_add(1, Ordering::Relaxed)) else {
                continue;
            };
            if let Some((status, headers, body)) = answer(&asked) {
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).ok();
                stream.write_all(&body).ok();
            }
        }
    });
    address
}

fn ok(body: impl Into<Vec<u8>>) -> Option<Told> {
    Some(("200 OK", String::new(), body.into()))
}

/// An npy array as NumPy writes it.
fn npy(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The images of a request: f32 behind a header.
fn sent(body: &[u8]) -> Vec<f32> {
    let length = usize::from(u16::from_le_bytes([body[8], body[9]]));
    let header = String::from_utf8_lossy(&body[10..10 + length]).into_owned();
    let values: Vec<f32> =
        body[10 + length..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let n = values.len() / SHAPE.pixels();
    assert!(header.contains("'<f4'") && header.contains(&format!("({n}, 3, 2, 4)")), "{header}");
    values
}

const LOGITS: &str = r#"{"shape": [3, 2, 4], "classes": 3, "answers": "logits"}"#;
const LABELS: &str = r#"{"shape": [3, 2, 4], "classes": 3, "answers": "labels", "batch": 4}"#;

fn told(asked: &Asked) -> Option<Told> {
    if asked.method == "GET" {
        return ok(LOGITS);
    }
    let z = logits(&sent(&asked.body));
    let bytes: Vec<u8> = z.iter().flat_map(|v| v.to_le_bytes()).collect();
    ok(npy("<f4", &format!("({}, 3)", z.len() / 3), &bytes))
}

fn quick() -> Options {
    Options { timeout: Duration::from_secs(20), retries: 1, ..Options::default() }
}

#[test]
fn the_plain_form_gives_logits_and_labels() {
    let model = Served::connect(&serve(told), quick()).unwrap();
    let x = images(6);
    assert_eq!((model.shape(), model.access()), (SHAPE, Access::Scores));
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    let named = serve(|asked| {
        if asked.method == "GET" {
            return ok(LABELS);
        }
        let classes = labels(&sent(&asked.body));
        let bytes: Vec<u8> = classes.iter().flat_map(|k| (*k as i64).to_le_bytes()).collect();
        ok(npy("<i8", &format!("({},)", classes.len()), &bytes))
    });
    let model = Served::connect(&named, quick()).unwrap();
    assert_eq!(model.access(), Access::Labels);
    let rows = model.logits(&x).unwrap();
    assert_eq!(rows.chunks(3).map(robustness::predicted).collect::<Vec<_>>(), labels(&x));
    assert_eq!((model.cost().requests, model.cost().queries), (2, 6));
}

/// A server of the Open Inference Protocol.
fn inference(asked: &Asked) -> Option<Told> {
    match (&*asked.method, &*asked.path) {
        ("GET", "/v2/models/m") => ok(r#"{"name": "m", "versions": ["1"], "platform": "onnx",
                "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 2, 4]}],
                "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}]}"#),
        ("POST", "/v2/models/m/infer") => {
            let request: serde_json::Value = serde_json::from_slice(&asked.body).unwrap();
            let input = &request["inputs"][0];
            assert_eq!((&input["name"], &input["datatype"]), (&"image".into(), &"FP32".into()));
            let data: Vec<f32> = serde_json::from_value(input["data"].clone()).unwrap();
            let n = data.len() / SHAPE.pixels();
            assert_eq!(input["shape"], serde_json::json!([n, 3, 2, 4]));
            let z = logits(&data);
            let output = serde_json::json!({"name": "scores", "datatype": "FP32", "shape": [n, 3], "data": z});
            ok(serde_json::json!({"model_name": "m", "outputs": [output]}).to_string())
        }
        _ => Some(("404 Not Found", String::new(), br#"{"error": "no such model"}"#.to_vec())),
    }
}

#[test]
fn the_inference_protocol_gives_the_same_bits() {
    let address = serve(inference);
    let model = Served::connect(&format!("{address}/v2/models/m/"), quick()).unwrap();
    let x = images(5);
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    let error = Served::connect(&format!("{address}/v2/models/other"), quick()).unwrap_err();
    assert!(error.to_string().contains("404 Not Found: no such model"), "{error}");
}

#[test]
fn headers_are_sent_and_stay_secret() {
    let address = serve(|asked| match asked.headers.contains("authorization: bearer word") {
        true => told(asked),
        false => Some(("401 Unauthorized", String::new(), b"who are you?\nline".to_vec())),
    });
    let error = Served::connect(&address, quick()).unwrap_err();
    assert!(error.to_string().contains("401 Unauthorized: who are you?"), "{error}");
    let headers = vec![("Authorization".to_owned(), "Bearer word".to_owned())];
    let address = address.replace("http://", "http://me:secret@");
    let model = Served::connect(&address, Options { headers, ..quick() }).unwrap();
    let x = images(1);
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    assert!(!model.name().contains("secret"), "{}", model.name());
}

#[test]
fn a_busy_server_is_asked_again_and_one_that_hangs_up_too() {
    let address = serve(|asked| match asked.before {
        1 => Some(("503 Service Unavailable", "Retry-After: 0\r\n".into(), Vec::new())),
        _ => told(asked),
    });
    let model = Served::connect(&address, quick()).unwrap();
    let x = images(2);
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    assert_eq!(model.cost().retries, 1);
    let address = serve(|asked| if asked.before == 1 { None } else { told(asked) });
    let model = Served::connect(&address, quick()).unwrap();
    assert_eq!(model.logits(&x).unwrap(), logits(&x));
    let always = serve(|asked| match asked.before {
        0 => told(asked),
        _ => Some(("429 Too Many Requests", "Retry-After: 0\r\n".into(), Vec::new())),
    });
    let error = Served::connect(&always, quick()).unwrap().logits(&x).unwrap_err().to_string();
    assert!(error.contains("busy (429 Too Many Requests)") && error.contains("2 times"), "{error}");
}

/// What goes wrong with a server that answers so to images.
fn problem(answer: impl Fn(&Asked) -> Option<Told> + Send + 'static, options: Options) -> Error {
    let address = serve(move |asked| match &*asked.method {
        "GET" => ok(LOGITS),
        _ => answer(asked),
    });
    let model = Served::connect(&address, options).unwrap();
    let robustness::Error::Classifier(inner) = model.logits(&images(2)).unwrap_err() else {
        panic!("not an error of the classifier")
    };
    *inner.downcast::<Error>().unwrap()
}

#[test]
fn what_goes_wrong_is_one_line_that_says_what() {
    let wide = npy("<f4", "(2, 4)", &[0; 32]);
    let long = vec![b'x'; (1 << 20) + 1000];
    for (told, word) in [
        (("200 OK", wide), "shape [2, 4], expected [2, 3]"),
        (("200 OK", b"<html>".to_vec()), "no npy array"),
        (("200 OK", npy("<f4", "(2, 3)", &[0; 20])), "cut off"),
        (("200 OK", long), "longer than"),
        (
            ("500 Internal Server Error", br#"{"detail": "boom"}"#.to_vec()),
            "500 Internal Server Error: boom",
        ),
    ] {
        let (status, body) = told;
        let text =
            problem(move |_| Some((status, String::new(), body.clone())), quick()).to_string();
        assert!(
            text.contains(word) && text.contains("127.0.0.1") && !text.contains('\n'),
            "{text}"
        );
    }
    let hasty = Options { timeout: Duration::from_millis(300), retries: 0, ..Options::default() };
    let late = |_: &Asked| {
        thread::sleep(Duration::from_secs(3));
        None
    };
    assert!(matches!(problem(late, hasty), Error::Late { .. }));
    for (url, word) in [
        ("ftp://host/x", "expected http://"),
        ("host:80", "expected http://"),
        ("http://127.0.0.1:1/", "refused"),
        ("http://[bad/", "not a URL"),
    ] {
        let options = Options { retries: 0, ..quick() };
        let error = Served::connect(url, options).unwrap_err().to_string();
        assert!(error.contains(word), "{url}: {error}");
    }
}
