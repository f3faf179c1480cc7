# The everyday commands; `just` alone lists them.

default:
    @just --list

# Everything that CI checks
ci:
    bash .ci/run

# All tests, in the one profile that everything shares
test *FILTER:
    cargo test --release --workspace {{FILTER}}

# Format and lint
lint:
    cargo fmt --all
    cargo clippy --release --workspace --all-targets -- -D warnings

# The documentation, with warnings denied
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps

# The documentation as a site, in target/book (cargo install mdbook)
book:
    scripts/ci/book.sh

# An archive of this machine's program, as it is published (see RELEASING.md)
dist:
    scripts/dist/build.sh

# The README's run
quickstart METHOD="sora":
    scripts/setup.sh
    cargo run --release -- train --dataset fashion-mnist --method {{METHOD}} --width 16 --epochs 1 --val 500 --out runs/{{METHOD}}
    cargo run --release -- eval runs/{{METHOD}} --limit 2000

# Twenty kills at random moments, then the same bits
kill-resume N="20":
    scripts/kill_resume.sh {{N}}

# Kills, full disks, failing calls, damaged files and more over every command, by count
faults *FLAGS:
    scripts/faults.sh {{FLAGS}}

# A long training whose memory and open files must not grow
soak STEPS="50000" WIDTH="4":
    cargo build --release --bin sora
    scripts/soak.py target/release/sora {{STEPS}} {{WIDTH}}

# Golden values from PyTorch, made anew (see scripts/golden/README.md)
golden:
    python3 -m venv .venv
    .venv/bin/pip install -q -r scripts/golden/requirements.txt
    .venv/bin/python scripts/golden/make.py

# Ours against a PyTorch step script, in turn
bench PEER:
    benches/compare.sh {{PEER}}

# A step by parts, an evaluation attack, and the convolutions next to the machine's peak
bench-parts WIDTH="64":
    cargo run --release --bin sora -- bench step --width {{WIDTH}} --profile
    cargo run --release --bin sora -- bench step --width {{WIDTH}} --profile --precision bf16
    cargo run --release --bin sora -- bench attack --width {{WIDTH}} --steps 2
    cargo run --release --bin sora -- bench conv --width {{WIDTH}}

# The kernels' tests on 64-bit Arm, emulated (nightly, QEMU)
arm *OPTIONS:
    scripts/arm.sh {{OPTIONS}}

# The kernels' tests under AddressSanitizer (nightly)
sanitize *FILTER:
    scripts/sanitize.sh {{FILTER}}

# A fuzz target of fuzz/ for some seconds, under AddressSanitizer (cargo install cargo-fuzz)
fuzz TARGET SECONDS="60":
    scripts/fuzz.sh {{TARGET}} {{SECONDS}}

# The GPU path without a GPU: Vulkan by Mesa's lavapipe against the CPU (the first build takes 15 minutes or more)
gpu-check *OPTIONS:
    cargo build --release --bin sora --features vulkan
    RUN=scripts/gpu/lavapipe.sh scripts/gpu/check.sh vulkan {{OPTIONS}}
    scripts/gpu/tests.sh
