"""components.py FILE.cdx.json TARGET: checks the list of components of a release (CycloneDX, by cargo-cyclonedx).

Every crate that the program is built of for TARGET must be listed with its version, licence and package URL;
the program itself must be the component that the list is about.
"""

import json
import subprocess
import sys

PROGRAM = "sora-robust-cli"


def built_of(target):
    """(name, version) of the crates in the program for `target`, without those of build scripts and tests."""
    call = ["cargo", "tree", "--locked", "--target", target, "-p", PROGRAM, "-e", "normal", "--prefix", "none"]
    lines = subprocess.run([*call, "-f", "{p}"], check=True, capture_output=True, encoding="utf-8").stdout.splitlines()
    return {(name, version.lstrip("v")) for name, version, *_ in (line.split() for line in lines if line.strip())}


def main():
    path, target = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        bom = json.load(file)
    problems = []
    if bom.get("bomFormat") != "CycloneDX":
        problems.append(f"bomFormat {bom.get('bomFormat')}: expected CycloneDX")
    about = bom["metadata"]["component"]
    if about["name"] != PROGRAM:
        problems.append(f"it is about {about['name']}: expected {PROGRAM}")
    listed = {(part["name"], part["version"]): part for part in bom["components"]}
    listed[about["name"], about["version"]] = about
    for name, version in sorted(built_of(target) - listed.keys()):
        problems.append(f"{name} {version} is in the program and not in the list")
    for (name, version), part in sorted(listed.items()):
        if not part.get("purl", "").startswith(f"pkg:cargo/{name}@{version}"):
            problems.append(f"{name} {version}: no package URL")
        if not part.get("licenses"):
            problems.append(f"{name} {version}: no licence")
    for problem in problems:
        print(f"components.py: {path}: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"{path}: {len(listed)} components, each with version, licence and package URL")


main()
