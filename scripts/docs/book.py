"""book.py SORA FOLDER: the source of the documentation site in FOLDER, for mdbook.

It is what is committed under docs/ (notes apart), the reference as the program SORA writes it, and the project's
ARCHITECTURE, CONTRIBUTING and CHANGELOG as chapters. Links that lead out of the site go to the repository.
"""

import os
import re
import shutil
import subprocess
import sys

REPOSITORY = "https://github.com/sora-robust/sora/blob/main/"
CHAPTERS = {"ARCHITECTURE.md": "design.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

sora, out = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
listed = subprocess.run(["git", "ls-files", "-z", "docs"], check=True, capture_output=True, text=True)
names = [name for name in listed.stdout.split("\0") if name and not name.startswith("docs/notes/")]
# Where each file of the repository that is part of the site lies in it.
places = {name: name.removeprefix("docs/") for name in names} | CHAPTERS


def relink(text, name):
    """The text of the repository's file `name` with its links as the site has them."""

    def link(match):
        before, target, after = match.groups()
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|//|#", target):
            return match.group()
        path, mark, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(name), path))
        if path in places:
            path = os.path.relpath(places[path], os.path.dirname(places[name]) or ".")
        elif name == "docs/SUMMARY.md":
            return match.group()
        else:
            path = REPOSITORY + path
        return before + path + mark + anchor + after

    # Code is left alone.
    parts = re.split(r"(?ms)(^ *```.*?^ *``` *$|`[^`\n]*`)", text)
    return "".join(p if i % 2 else re.sub(r"(\]\()([^)\s]+)(\))", link, p) for i, p in enumerate(parts))


for name, place in places.items():
    target = os.path.join(out, place)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not name.endswith(".md"):
        shutil.copy(name, target)
        continue
    with open(name, encoding="utf-8") as file:
        text = relink(file.read(), name)
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)
subprocess.run([sora, "reference", os.path.join(out, "reference"), "--force"], check=True, stdout=subprocess.DEVNULL)

# Every page has its place in the summary, and the other way round.
with open(os.path.join(out, "SUMMARY.md"), encoding="utf-8") as file:
    summary = set(re.findall(r"\]\(([^)]+)\)", file.read()))
pages = set()
for base, _, files in os.walk(out):
    pages |= {os.path.relpath(os.path.join(base, file), out) for file in files if file.endswith(".md")}
pages -= {"SUMMARY.md"}
wrong = [f"docs/SUMMARY.md: {page}: no such page" for page in sorted(summary - pages)]
wrong += [f"docs/SUMMARY.md: {page} is not in it" for page in sorted(pages - summary)]
print("\n".join(wrong) or f"{len(pages)} pages")
sys.exit(bool(wrong))
