"""licences.py TARGET: the licences of everything that the program for TARGET is made of.

Crates: what is linked into it counts (cargo's normal dependencies), one entry a crate, with the texts that its
package carries; texts that are the same are given once. Fails where a crate has neither a licence file nor a known
licence's name. Then what is no crate: Rust's standard library, works whose files the program holds, and on Linux
glibc, which it is linked with statically.
"""

import json
import os
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# (title, files of this repository with the text).
NO_CRATES = [
    ("Rust's standard library (MIT OR Apache-2.0)", ["packaging/licences/rust-std.txt"]),
    ("Inter, the font of PNG figures (OFL-1.1)", ["crates/plot/src/font/OFL.txt"]),
    ("uPlot, the curves of reports (MIT)", ["crates/sora/src/report/vendor/LICENSE-uPlot"]),
]
GLIBC = ("GNU C Library (LGPL-2.1-or-later)", ["packaging/licences/glibc.txt", "packaging/licences/LGPL-2.1.txt"])
# Debian's list of the notices in glibc's own files, where the build machine has it: its glibc is the one linked.
GLIBC_NOTICES = "/usr/share/doc/libc6-dev/copyright"


def packages_used(target):
    """The packages linked into the program for `target`, as `cargo metadata` describes them, in order."""
    call = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    # cargo writes UTF-8 everywhere; Windows would be taken at its code page.
    metadata = json.loads(subprocess.run(call, check=True, capture_output=True, encoding="utf-8").stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [p["id"] for p in metadata["packages"] if p["name"] == "sora-robust-cli"]
    used = set()
    while waiting:
        name = waiting.pop()
        if name in used:
            continue
        used.add(name)
        for dependency in nodes[name]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return sorted((packages[name] for name in used), key=lambda p: (p["name"], p["version"]))


def text_of(paths):
    """The files one after the other."""
    text = ""
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as file:
            text += file.read().replace("\r\n", "\n").strip() + "\n\n"
    return text


def licence_files(folder):
    """Files of a package that hold its licence."""
    wanted = ("license", "licence", "copying", "notice", "unlicense")
    found = []
    for base in (folder, os.path.join(folder, "LICENSES")):
        if os.path.isdir(base):
            names = [n for n in os.listdir(base) if base != folder or n.lower().startswith(wanted)]
            found += [os.path.join(base, n) for n in sorted(names) if os.path.isfile(os.path.join(base, n))]
    return found


def entry(package):
    """(title, text) of a package."""
    found = licence_files(os.path.dirname(package["manifest_path"]))
    if not package["license"] and not found:
        sys.exit(f"licences.py: {package['name']} {package['version']}: no licence; expected a name or a file")
    title = f"{package['name']} {package['version']} ({package['license'] or 'see the text'})"
    if found:
        return title, text_of(found)
    authors = ", ".join(package["authors"]) or package["repository"] or ""
    return title, f"Under {package['license']}; its package carries no text. {authors}\n\n"


def no_crates(target):
    """(title, text) of what is no crate."""
    works = NO_CRATES + ([GLIBC] if target.endswith("-linux-gnu") else [])
    for title, names in works:
        paths = [os.path.join(ROOT, name) for name in names]
        if title == GLIBC[0] and os.path.exists(GLIBC_NOTICES):
            paths.append(GLIBC_NOTICES)
        yield title, text_of(paths)


def main():
    target = sys.argv[1]
    # A Windows runner's own encoding lacks letters of authors' names.
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    texts = {}
    # The crates of this repository are under its own LICENSE.
    others = [entry(package) for package in packages_used(target) if package["source"] is not None]
    for title, text in [*others, *no_crates(target)]:
        texts.setdefault(text, []).append(title)
    print("sora contains the following works, each under its licence.\n")
    for text, titles in texts.items():
        print("=" * 78)
        print("\n".join(titles))
        print("-" * 78)
        print(text)


main()
