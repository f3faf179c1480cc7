"""tar.py FOLDER NAME SECONDS ARCHIVE: FOLDER/NAME as a .tar.gz, the same bytes wherever it is made."""

import gzip
import os
import sys
import tarfile

folder, name, when, archive = sys.argv[1:]


def plain(member):
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = int(when)
    member.mode = 0o755 if member.isdir() or os.path.basename(member.name) == "sora" else 0o644
    return member


with open(archive, "wb") as file:
    # No name and no time in the header of gzip.
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            paths = [name]
            for base, _, files in os.walk(os.path.join(folder, name)):
                inside = os.path.relpath(base, folder)
                paths += [inside] + [os.path.join(inside, file) for file in files]
            for path in sorted(set(paths)):
                tar.add(os.path.join(folder, path), arcname=path, recursive=False, filter=plain)
