//! Fetching from a server in the test that misbehaves on demand.

#![allow(clippy::unwrap_used)]

mod server;

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::TcpListener;
use std::time::Duration;

use md5::Md5;
use sha2::{Digest, Sha256};

use self::server::{Act, Server};
use super::*;
use crate::info::{Checksum, Source};

struct Case {
    dir: tempfile::TempDir,
    info: Info,
}

const CONTENT_LEN: usize = 300_000;

fn content() -> Vec<u8> {
    (0..CONTENT_LEN as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

impl Case {
    fn new() -> Self {
        let sha = Sha256::digest(content()).iter().map(|b| format!("{b:02x}")).collect();
        let source = Source {
            file: "file.bin".into(),
            url: "http://127.0.0.1:9/unused".into(),
            size: Some(CONTENT_LEN as u64),
            checksum: Checksum::Sha256(sha),
        };
        let info =
            Info { name: "set".into(), sources: vec![source], ..crate::find("mnist").unwrap() };
        Self { dir: tempfile::tempdir().unwrap(), info }
    }

    fn fetch(&self, server: &Server) -> Result<Vec<PathBuf>> {
        let options = FetchOptions {
            base_url: Some(format!("http://{}/data/", server.address)),
            backoff: Duration::from_millis(1),
            timeout: Duration::from_secs(5),
            ..Default::default()
        };
        fetch(&self.info, self.dir.path(), &options)
    }

    fn message(&self, server: &Server) -> String {
        let message = self.fetch(server).unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        assert!(!self.path("file.bin").exists());
        message
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join("set").join(file)
    }

    fn is_whole(&self) -> bool {
        fs::read(self.path("file.bin")).unwrap() == content()
            && !self.path("file.bin.part").exists()
    }
}

fn from(byte: usize) -> Option<String> {
    Some(format!("bytes={byte}-"))
}

#[test]
fn a_whole_download_is_put_in_place_and_kept() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Serve]);
    assert_eq!(case.fetch(&server).unwrap(), [case.path("file.bin")]);
    assert!(case.is_whole());
    case.fetch(&server).unwrap();
    assert_eq!(server.ranges(), [None], "the second call needs no request");
    // A file that went bad is replaced.
    fs::write(case.path("file.bin"), "short").unwrap();
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
}

#[test]
fn progress_grows_to_the_total() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Break(100_000), Act::Serve]);
    let seen = RefCell::new(Vec::new());
    let report = |p: FetchProgress<'_>| {
        assert_eq!((p.file, p.total), ("file.bin", Some(CONTENT_LEN as u64)));
        seen.borrow_mut().push(p.done);
    };
    let options = FetchOptions {
        base_url: Some(format!("http://{}", server.address)),
        progress: Some(&report),
        backoff: Duration::from_millis(1),
        ..Default::default()
    };
    fetch(&case.info, case.dir.path(), &options).unwrap();
    let seen = seen.into_inner();
    assert!(seen.is_sorted() && seen.last() == Some(&(CONTENT_LEN as u64)), "{seen:?}");
}

#[test]
fn a_broken_connection_is_resumed() {
    let case = Case::new();
    // More breaks than attempts: each brings new bytes, so each starts the count afresh.
    let acts = [
        Act::Break(50_000),
        Act::Break(1_000),
        Act::Break(0),
        Act::Break(9_000),
        Act::Break(10),
        Act::Status(503),
        Act::Serve,
    ];
    let server = Server::new(&content(), &acts);
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
    let want =
        [None, from(50_000), from(51_000), from(51_000), from(60_000), from(60_010), from(60_010)];
    assert_eq!(server.ranges(), want);
}

#[test]
fn a_stalled_connection_is_given_up_and_resumed() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Stall(40_000), Act::Serve]);
    let options = FetchOptions {
        base_url: Some(format!("http://{}", server.address)),
        backoff: Duration::from_millis(1),
        timeout: Duration::from_millis(300),
        ..Default::default()
    };
    fetch(&case.info, case.dir.path(), &options).unwrap();
    assert!(case.is_whole());
    assert_eq!(server.ranges(), [None, from(40_000)]);
}

#[test]
fn a_trickle_is_given_up_although_it_brings_bytes() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Drip]);
    let options = FetchOptions {
        base_url: Some(format!("http://{}", server.address)),
        attempts: 2,
        backoff: Duration::from_millis(1),
        timeout: Duration::from_millis(500),
        min_pace: 50_000,
        ..Default::default()
    };
    let error = fetch(&case.info, case.dir.path(), &options).unwrap_err().to_string();
    assert!(error.contains("bytes came in"), "{error}");
    assert_eq!(server.ranges().len(), 2);
}

#[test]
fn a_file_of_unknown_size_has_a_bound() {
    let mut case = Case::new();
    case.info.sources[0].size = None;
    // Announced, then found out.
    let server = Server::new(&content(), &[Act::Serve, Act::Endless]);
    fs::create_dir_all(case.path("")).unwrap();
    let options =
        FetchOptions { base_url: Some(format!("http://{}", server.address)), ..Default::default() };
    let agent = ureq::Agent::new_with_defaults();
    let fetch = |most| {
        let source = &case.info.sources[0];
        download::Download::new(source, most, &case.path(""), &agent, &options).run()
    };
    for most in [CONTENT_LEN as u64 - 1, 2 * CONTENT_LEN as u64] {
        let error = fetch(most).unwrap_err().to_string();
        assert!(error.contains(&format!("more than {most} bytes, which no file")), "{error}");
        assert!(fs::metadata(case.path("file.bin.part")).unwrap().len() <= most);
    }
    assert_eq!(server.ranges().len(), 2);
    // The bound of a set leaves room for its largest file, 12.6 GB.
    assert!((13 << 30..40 << 30).contains(&most(&crate::find("pathmnist-224").unwrap())));
}

#[test]
fn a_later_call_goes_on_where_the_first_stopped() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Break(70_000), Act::HangUp]);
    let message = case.message(&server);
    assert!(
        message.contains("cannot fetch http://127.0.0.1")
            && message.contains("goes on where it stopped"),
        "{message}"
    );
    assert_eq!(fs::metadata(case.path("file.bin.part")).unwrap().len(), 70_000);
    let server = Server::new(&content(), &[Act::Serve]);
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
    assert_eq!(server.ranges(), [from(70_000)]);
}

#[test]
fn a_whole_part_file_needs_no_request() {
    let case = Case::new();
    fs::create_dir(case.path("")).unwrap();
    fs::write(case.path("file.bin.part"), content()).unwrap();
    let server = Server::new(&content(), &[Act::Status(404)]);
    case.fetch(&server).unwrap();
    assert!(case.is_whole() && server.ranges().is_empty());
}

#[test]
fn a_server_without_ranges_starts_afresh() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Break(70_000), Act::NoRange]);
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
    assert_eq!(server.ranges(), [None, from(70_000)]);
}

#[test]
fn a_range_that_was_not_asked_for_starts_afresh() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Break(70_000), Act::WrongRange, Act::Serve]);
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
    assert_eq!(server.ranges(), [None, from(70_000), None]);
}

#[test]
fn a_part_file_that_is_too_long_starts_afresh() {
    let mut case = Case::new();
    fs::create_dir(case.path("")).unwrap();
    fs::write(case.path("file.bin.part"), vec![0; CONTENT_LEN + 5]).unwrap();
    case.info.sources[0].size = None;
    let server = Server::new(&content(), &[Act::Serve]);
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
    assert_eq!(server.ranges(), [from(CONTENT_LEN + 5), None]);
}

#[test]
fn a_wrong_checksum_is_told_and_the_download_removed() {
    let case = Case::new();
    let mut other = content();
    other[1234] ^= 1;
    let found: String = Sha256::digest(&other).iter().map(|b| format!("{b:02x}")).collect();
    let message = case.message(&Server::new(&other, &[Act::Serve]));
    let expected = case.info.sources[0].checksum.to_string();
    assert!(message.contains(&format!("found checksum {found}, expected {expected}")), "{message}");
    assert!(!case.path("file.bin.part").exists());
}

#[test]
fn md5_is_checked_where_that_is_what_is_published() {
    let mut case = Case::new();
    let md5: String = Md5::digest(content()).iter().map(|b| format!("{b:02x}")).collect();
    case.info.sources[0].checksum = Checksum::Md5(md5.clone());
    let server = Server::new(&content(), &[Act::Serve]);
    case.fetch(&server).unwrap();
    fs::remove_file(case.path("file.bin")).unwrap();
    case.info.sources[0].checksum = Checksum::Md5(md5.chars().rev().collect());
    assert!(case.message(&server).contains("expected MD5 "));
}

#[test]
fn a_wrong_size_is_told_before_the_download() {
    let case = Case::new();
    let message = case.message(&Server::new(&content()[..1000], &[Act::Serve]));
    assert!(message.contains("the server has 1000 bytes, expected 300000"), "{message}");
}

#[test]
fn statuses_are_told() {
    let case = Case::new();
    let server = Server::new(&content(), &[Act::Status(404)]);
    let message = case.message(&server);
    assert!(message.contains("HTTP 404") && message.contains("home page"), "{message}");
    assert_eq!(server.ranges().len(), 1, "no second try");
    let server = Server::new(&content(), &[Act::Status(403)]);
    assert!(case.message(&server).contains("HTTP 403"));
    let server = Server::new(&content(), &[Act::Status(500)]);
    assert!(case.message(&server).contains("HTTP 500"));
    assert_eq!(server.ranges().len(), 4, "as many tries as attempts");
}

#[test]
fn no_network_is_told() {
    let case = Case::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = FetchOptions {
        base_url: Some(format!("http://{address}")),
        backoff: Duration::from_millis(1),
        attempts: 2,
        ..Default::default()
    };
    let message = fetch(&case.info, case.dir.path(), &options).unwrap_err().to_string();
    assert!(
        message.contains(&address.to_string()) && message.contains("check the network"),
        "{message}"
    );
    // Encryption is at work: a server that does not speak it is refused.
    let server = Server::new(&content(), &[Act::Serve]);
    options.base_url = Some(format!("https://{}", server.address));
    let message = fetch(&case.info, case.dir.path(), &options).unwrap_err().to_string();
    assert!(
        message.contains("https://")
            && message.contains("network error")
            && !message.contains('\n'),
        "{message}"
    );
    options.base_url = Some("not a web address".into());
    let message = fetch(&case.info, case.dir.path(), &options).unwrap_err().to_string();
    assert!(message.contains("not a web address") && !message.contains('\n'), "{message}");
}

#[test]
fn two_fetches_do_not_write_one_file() {
    let case = Case::new();
    fs::create_dir(case.path("")).unwrap();
    let held = File::create(case.path("file.bin.part")).unwrap();
    held.lock().unwrap();
    let server = Server::new(&content(), &[Act::Serve]);
    assert!(case.message(&server).contains("another fetch is at work"));
    drop(held);
    case.fetch(&server).unwrap();
    assert!(case.is_whole());
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    let case = Case::new();
    let file = case.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let message = fetch(&case.info, &file, &FetchOptions::default()).unwrap_err().to_string();
    assert!(message.starts_with("cannot create ") && message.contains("file/set"), "{message}");
}

#[test]
fn a_set_without_files_says_what_to_do() {
    let info = crate::find("imagenet100").unwrap();
    let message =
        fetch(&info, Path::new("/nonexistent"), &FetchOptions::default()).unwrap_err().to_string();
    assert!(
        message.contains("'imagenet100' has no files to download")
            && message.contains("image-net.org"),
        "{message}"
    );
}
