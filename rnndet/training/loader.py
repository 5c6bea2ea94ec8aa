"""Load the batches of each step in order, in loader processes, threads, or this process."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import torch
from torch.utils.data import DataLoader

from rnndet.config import TrainConfig
from rnndet.data.clips.dataset import ClipBatch, ClipDataset, WindowSampler, collate
from rnndet.errors import RnndetError


class StepLoader:
    """Yields the train.accumulate batches of each step, which together hold this process's rows."""

    def __init__(
        self,
        dataset: ClipDataset,
        config: TrainConfig,
        *,
        rows: range,
        first_step: int,
        device: torch.device,
    ) -> None:
        self.config, self.rows, self.step = config, rows, first_step
        batch = len(rows) // config.accumulate
        items = WindowSampler(dataset, rows, batch=batch, first_step=first_step)
        if config.augment_on == "device":
            prefetch = config.prefetch * config.accumulate
            self.batches = in_threads(
                dataset, items, threads=max(1, config.workers), prefetch=prefetch
            )
            return
        self.batches = iter(
            DataLoader(
                dataset,
                batch_sampler=items,
                num_workers=config.workers,
                collate_fn=collate,
                pin_memory=device.type == "cuda",
                persistent_workers=config.workers > 0,
                timeout=config.loader_timeout if config.workers else 0,
                worker_init_fn=one_thread,
            )
        )

    def __iter__(self) -> Iterator[list[ClipBatch]]:
        return self

    def __next__(self) -> list[ClipBatch]:
        """The batches of the next step. Raises RnndetError if a loader process dies or hangs."""
        try:
            batches = list(islice(self.batches, self.config.accumulate))
        except RnndetError as error:
            raise type(error)(message_of(error)) from None
        except RuntimeError as error:
            if "DataLoader" not in str(error):
                raise
            first = self.step * self.config.batch + self.rows.start
            raise RnndetError(
                f"step {self.step}: a loader process died or took more than train.loader_timeout = "
                f"{self.config.loader_timeout} s at the items {first} to "
                f"{first + len(self.rows) - 1}: {str(error).splitlines()[0]}; with train.workers = "
                "0 the traceback shows the cause"
            ) from None
        if not batches:
            raise StopIteration
        self.step += 1
        return batches


def message_of(error: RnndetError) -> str:
    """Return the message of an error without the traceback that a loader process puts before it."""
    name = f"{type(error).__module__}.{type(error).__qualname__}: "
    return str(error).rpartition(f"\n{name}")[2].rstrip("\n")


def in_threads(
    dataset: ClipDataset, items: Iterable[list[int]], *, threads: int, prefetch: int
) -> Iterator[ClipBatch]:
    """Batches of the items in order, prepared by threads, `prefetch` of them in advance.

    Threads of one process share its device, which processes cannot do; decoding and work on the
    device release the interpreter lock.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        waiting: deque[list[Future]] = deque()
        for batch in items:
            waiting.append([pool.submit(dataset.__getitem__, item) for item in batch])
            if len(waiting) > prefetch:
                yield collate([window.result() for window in waiting.popleft()])
        while waiting:
            yield collate([window.result() for window in waiting.popleft()])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def one_thread(_: int) -> None:
    """Limit a loader process to one core; more processes use more cores."""
    torch.set_num_threads(1)
