//! Records the git revision that the program is built from.

use std::{path::Path, process::Command};

fn main() {
    let git = |args: &[&str]| {
        Command::new("git").args(args).output().ok().filter(|out| out.status.success())
    };
    if let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!(
            "cargo::rustc-env=SORA_GIT_REVISION={}",
            String::from_utf8_lossy(&revision.stdout).trim()
        );
    }
    // A path that is not there (a source archive, a linked work tree) would make every build run
    // this again.
    for path in ["../../.git/HEAD", "../../.git/logs/HEAD"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
    {
        println!("cargo::rerun-if-changed={path}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
