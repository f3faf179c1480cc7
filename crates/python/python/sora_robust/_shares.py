"""Passes of a PyTorch module on the CPU, several at a time."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Callable, Iterator, List, Optional, Tuple

# More threads would wait for the interpreter, which runs the Python of one at a time.
MOST = 4
# Images of a share, at least.
LEAST = 2
# How deep a module's own values are looked into, and at how many: a module with more counts as one that keeps something.
DEEP = 4
MANY = 200_000


def held(torch: Any, module: Any) -> List[Tuple[Any, Any]]:
    """What a module holds: each attribute and buffer of its parts, and what lists, dictionaries and plain objects among
    them contain, some deep; beside a tensor the count of the writes into it.

    The values stay alive with the list, so that none of a later list can take the place of one of these in memory.
    """

    def written(value: Any) -> Any:
        counts = isinstance(value, torch.Tensor) and not value.is_inference()
        return value._version if counts else None

    seen: set = set()

    def values(inside: List[Any], depth: int) -> Iterator[Any]:
        for value in inside:
            yield value
            if depth > 0 and id(value) not in seen:
                seen.add(id(value))
                yield from values(_contained(value), depth - 1)

    own = (value for part in module.modules() for value in [*vars(part).values(), *part._buffers.values()])
    return [(value, written(value)) for value in islice(values(list(own), DEEP), MANY)]


def _contained(value: Any) -> List[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, (list, tuple, set, deque)):
        return list(value)
    # Parts of a module are visited as such; functions and classes hold nothing of it.
    return [] if callable(value) else list(getattr(value, "__dict__", {}).values())


def is_same(torch: Any, before: List[Tuple[Any, Any]], after: List[Tuple[Any, Any]]) -> bool:
    """Whether two lists of `held` have the same objects, with nothing written into a tensor, or tensors in their place
    with the same values, as of a weight that is computed anew in each pass from others (weight norm, pruning).
    """

    def same(a: Any, m: Any, b: Any, n: Any) -> bool:
        if a is b:
            return m == n
        tensors = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
        return tensors and a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))

    return len(before) == len(after) < MANY and all(same(*x, *y) for x, y in zip(before, after))


def assigns(module: Any) -> bool:
    """Whether a part of a module is TorchScript that assigns to attributes, which are not among Python's."""
    return any("prim::SetAttr" in str(getattr(part, "inlined_graph", "")) for part in module.modules())


class Shares:
    """Calls a function with shares of a batch at once, each on a thread of its own.

    PyTorch divides every operation among its threads. On images of 32 pixels that gains little, and on a few of
    them it loses: shares of the batch side by side keep the same number of threads busy.
    """

    def __init__(self, torch: Any, device: Any):
        self._most, self._pool = 1, None  # type: int, Optional[ThreadPoolExecutor]
        threads = torch.get_num_threads()
        # Other forms of PyTorch have one number of threads for the whole process.
        if device.type != "cpu" or threads < 2 or "backend: OpenMP" not in torch.__config__.parallel_info():
            return
        self._most = min(MOST, threads)
        self._pool = ThreadPoolExecutor(self._most)
        together = threading.Barrier(self._most)

        def begin(_: int) -> None:
            torch.set_num_threads(threads // self._most)
            # A thread takes the number last set by any when it first asks: here, so that it keeps its own.
            torch.get_num_threads()
            together.wait()

        list(self._pool.map(begin, range(self._most)))
        # For threads that ask later.
        torch.set_num_threads(threads)

    def of(self, rows: int) -> int:
        """The number of shares of so many images."""
        return max(1, min(self._most, rows // LEAST))

    def map(self, function: Callable, *shares: Any) -> List[Any]:
        """`function` of each share (and of its companions in the other sequences), in order."""
        if self._pool is None or len(shares[0]) == 1:
            return list(map(function, *shares))
        return list(self._pool.map(function, *shares))

    def close(self) -> None:
        """Ends the threads; everything is called on the calling thread from here on."""
        if self._pool is not None:
            self._pool.shutdown()
        self._most, self._pool = 1, None
