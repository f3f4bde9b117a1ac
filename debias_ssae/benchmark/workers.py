"""Groups of work in processes of one thread each; the same functions run in this process without them."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from debias_ssae.benchmark.parts import Part, Parts
from debias_ssae.core.errors import InputError

Work = Callable[[Any, Any, Callable[[], Any]], None]
"""``work((ready, parts), group, on_part)``: does a group, keeps its parts on disk, calls on_part after each."""
_LOOK_SECONDS = 1.0
_mine: dict[str, Any] = {}


def run_parts(
    work: Work,
    ready: Any,
    parts: Parts,
    groups: Sequence[Any],
    wanted: Sequence[tuple[str, str]],
    *,
    jobs: int | None,
    progress: bool,
    unit: str = "part",
) -> tuple[list[Part], bool]:
    """Do every group, which leaves the ``wanted`` parts on disk; return these, and whether some were there before.

    ``jobs=None``: here, with all threads. ``jobs=1``: here, one thread; more: that many processes, one thread
    each, so that results do not depend on ``jobs``. ``work`` and ``ready`` must then be picklable. Raises what
    a group raises, and InputError when a process dies (mostly of memory). The bar shows parts and the time left.
    """

    def finished() -> int:
        return sum(parts.has(*one) for one in wanted)

    before, shared = finished(), (ready, parts)
    with tqdm(total=len(wanted), initial=before, disable=not progress, unit=unit, smoothing=0.05) as bar:
        if jobs is None or jobs == 1 or len(groups) < 2:
            with one_thread(jobs is not None):
                for group in groups:
                    work(shared, group, bar.update)
        else:
            _in_processes(work, shared, groups, jobs, lambda: bar.update(finished() - bar.n))
    return [parts.read(*one) for one in wanted], before > 0


def with_helpers(groups: Sequence[Any], jobs: int | None) -> list[tuple[Any, bool]]:
    """Each group once, and then, for processes that have nothing left, from the last on with the mark True: to help
    from the group's other end. Work on a part has to be claimed then.
    """
    helpers = [(group, True) for group in reversed(groups)] * ((jobs or 1) - 1)
    return [(group, False) for group in groups] + helpers


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Hold BLAS, OpenMP and torch to one thread; do nothing unless ``wanted``."""
    if not wanted:
        yield
        return
    # torch is slow to import, and --help imports this room
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _in_processes(work: Work, shared: Any, groups: Sequence[Any], jobs: int, look: Callable[[], Any]) -> None:
    # spawn: forking a process that has torch threads may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(groups)), mp_context=context, initializer=_begin, initargs=(work, shared)
    )
    try:
        futures = {pool.submit(_do, group) for group in groups}
        while futures:
            done, futures = wait(futures, timeout=_LOOK_SECONDS, return_when=FIRST_EXCEPTION)
            look()
            for future in done:
                future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the benchmark died, mostly for want of memory; run the same command again with "
            "fewer --jobs: what was finished is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: Work, shared: Any) -> None:
    _mine.update(work=work, shared=shared)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A parent killed outright must not leave workers that write on beside the run that resumes it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(group: Any) -> None:
    with one_thread():
        _mine["work"](_mine["shared"], group, lambda: None)
