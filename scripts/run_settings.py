"""Settings of a training, for scripts that do not repeat a run which is already there: as flags of `sora train`, and
held against what the run folder's config.toml says. Needs Python 3.11."""

import os
import sys
import tomllib
from fractions import Fraction


def flags(settings):
    """Keys of config.toml and their values, as words for `sora train`."""
    return [word for key, value in settings.items() for word in (f"--{key.replace('_', '-')}", value)]


def refuse_others(run, settings, options=None):
    """Ends the script with one line and exit status 2 where the run folder `run` is there with other settings, or with
    other options of its method. What is not named may be anything."""
    file = run / "config.toml"
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        refuse(f"{file}: {error}; take away the run, or another --out")
    wanted = [(key, found.get(key), value) for key, value in settings.items()]
    wanted += [(f"options.{key}", found.get("options", {}).get(key), value) for key, value in (options or {}).items()]
    for key, there, value in wanted:
        alike = data_set(str(there)) == data_set(value) if key == "dataset" else same(there, value)
        if not alike:
            refuse(f"{file}: {key} is {there}, expected {value}; take the settings of that run, or another --out")


def refuse(problem):
    """One line and exit status 2."""
    print(problem, file=sys.stderr)
    sys.exit(2)


def data_set(name):
    """A data set by name; that of a folder by its place, which a run keeps as an absolute path."""
    kind, _, path = name.partition(":")
    if kind in ("folder", "imagefolder"):
        return kind, os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(os.path.expanduser(name)):
        return "folder", os.path.abspath(os.path.expanduser(name))
    return name


def same(a, b):
    """Whether two values are one; radii are so in any spelling (8/255)."""
    try:
        return a == b or Fraction(str(a)) == Fraction(str(b))
    except (ValueError, ZeroDivisionError):
        return False
