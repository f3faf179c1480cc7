#!/usr/bin/env bash
# Every relative link of every committed Markdown file leads to a committed file or folder, and one
# with a # to a heading that is there; so does every path in backticks that begins with a folder of
# the repository. Links to the web are not followed.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 - <<'PYTHON'
import os
import re
import subprocess
import sys

committed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True)
files = set(committed.stdout.split("\0")) - {""}
folders = {"."}
for name in files:
    while name := os.path.dirname(name):
        folders.add(name)


def prose(path):
    """The text without blocks of code and code within lines."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text = re.sub(r"(?ms)^ *(```|~~~).*?^ *\1 *$", "", text)
    return text, re.sub(r"`[^`\n]*`", "", text)


def anchors(path):
    """Names of the headings, as GitHub makes them."""
    names = {}
    for heading in re.findall(r"(?m)^#+ +(.*?) *#* *$", prose(path)[0]):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")
        names[name] = names.get(name, -1) + 1
    return {f"{name}-{n}" if n else name for name, last in names.items() for n in range(last + 1)}


dead = []
checked = 0
# The site's summary names pages that are made when it is built: book.sh checks it.
for path in sorted(name for name in files if name.endswith(".md") and name != "docs/SUMMARY.md"):
    blocks, text = prose(path)
    for name in re.findall(r"`((?:crates|scripts|docs|benches|fuzz|examples|packaging)/[^`\s]+)`", blocks):
        # What stands for something (TARGET, NAME.md, *) is no path.
        if not re.search(r"[*{}<>]|[A-Z]{4}", name):
            checked += 1
            near = os.path.normpath(os.path.join(os.path.dirname(path), name))
            if not {os.path.normpath(name), near} & (files | folders):
                dead.append(f"{path}: `{name}`: no such committed file")
    links = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    links += re.findall(r"(?m)^ *\[[^\]^]+\]:\s*<?([^\s>]+)", text)
    links += re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
    for link in links:
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//", link):
            continue
        checked += 1
        name, _, anchor = link.partition("#")
        base = os.path.dirname(path)
        target = os.path.normpath(name[1:] if name.startswith("/") else os.path.join(base, name)) if name else path
        if target not in files and target not in folders:
            dead.append(f"{path}: {link}: no such committed file")
        elif anchor and target.endswith(".md") and anchor not in anchors(target):
            dead.append(f"{path}: {link}: no such heading")
print("\n".join(dead + [f"{checked} links checked, {len(dead)} dead"]))
sys.exit(1 if dead or not checked else 0)
PYTHON
