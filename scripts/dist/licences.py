"""licences.py TARGET: the licences of all crates that the program is made of, as their packages carry them.

What is linked into the program for TARGET counts (cargo's normal dependencies), one entry a crate; texts that are
the same are given once. Fails where a crate has neither a licence file nor a known licence's name.
"""

import json
import os
import subprocess
import sys

target = sys.argv[1]
metadata = json.loads(
    subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
)
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

texts = {}
for package in sorted((packages[name] for name in used), key=lambda p: (p["name"], p["version"])):
    if package["source"] is None:
        continue
    folder = os.path.dirname(package["manifest_path"])
    wanted = ("license", "licence", "copying", "notice", "unlicense")
    found = []
    for base in (folder, os.path.join(folder, "LICENSES")):
        if os.path.isdir(base):
            names = [n for n in os.listdir(base) if base != folder or n.lower().startswith(wanted)]
            found += [os.path.join(base, n) for n in sorted(names) if os.path.isfile(os.path.join(base, n))]
    if not package["license"] and not found:
        sys.exit(f"{package['name']} {package['version']}: no licence")
    title = f"{package['name']} {package['version']} ({package['license'] or 'see the text'})"
    text = ""
    for path in found:
        with open(path, encoding="utf-8", errors="replace") as file:
            text += file.read().replace("\r\n", "\n").strip() + "\n\n"
    if not found:
        authors = ", ".join(package["authors"]) or package["repository"] or ""
        text = f"Under {package['license']}; its package carries no text. {authors}\n\n"
    texts.setdefault(text, []).append(title)

print("sora contains the following works, each under its licence.\n")
for text, titles in texts.items():
    print("=" * 78)
    print("\n".join(titles))
    print("-" * 78)
    print(text)
