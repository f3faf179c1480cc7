from os import PathLike
from typing import Any, Callable, Optional, Sequence

__version__: str

def program(words: Sequence[str]) -> int: ...
def shape_of(
    path: "str | PathLike[str]",
    normalisation: "Optional[tuple[list[float], list[float]]]" = None,
    image_size: Optional[int] = None,
) -> list[int]: ...
def pull_back(
    path: "str | PathLike[str]",
    x: bytes,
    cotangent: bytes,
    image_size: Optional[int] = None,
    one_output: Optional[str] = None,
) -> "tuple[bytes, bytes]": ...
def evaluate(
    model: Any, request: Any, progress: "Optional[Callable[[str, int, int, str], None]]" = None
) -> "tuple[str, list[tuple[str, str]]]": ...
def train(
    settings: str,
    out: "str | PathLike[str]",
    progress: "Optional[Callable[[str, int, int, str], None]]" = None,
) -> str: ...
