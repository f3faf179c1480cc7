"""Progress on the screen, or to a function of the caller."""

from __future__ import annotations

import sys
from typing import Any, Callable, Optional, Union

Progress = Union[bool, Callable[[str, int, int, str], None]]


class Bars:
    """A tqdm bar for each piece of work; no bars where tqdm is not installed."""

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            tqdm = None
        self._tqdm, self._bar, self._what = tqdm, None, None

    def __call__(self, what: str, done: int, total: int, remark: str) -> None:
        if what == "message":
            (self._tqdm.write(remark, file=sys.stderr) if self._tqdm else print(remark, file=sys.stderr))
            return
        if self._tqdm is None:
            return
        if what != self._what:
            self.close()
            self._bar, self._what = self._tqdm(total=total, desc=what, leave=False), what
        self._bar.set_postfix_str(remark, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def listener(progress: Progress) -> Optional[Any]:
    """The function that receives the progress that `progress` asks for; None for no progress."""
    if progress is False or progress is None:
        return None
    return Bars() if progress is True else progress
