"""The processes of torch.distributed that train one SAE together; one process is the plain case."""

import torch
import torch.distributed as dist
from torch import Tensor

from debias_ssae.core.device import process_number
from debias_ssae.core.errors import InputError
from debias_ssae.core.shards import process_share


def start_processes(device: torch.device) -> None:
    """Start the process group of torchrun, if it runs this; with "cuda", each process works on its own GPU.

    Raises InputError when the machine has fewer GPUs than processes.
    """
    if process_share()[1] < 2:
        return
    if device.type == "cuda":
        here, n_gpus = process_number("LOCAL_RANK"), torch.cuda.device_count()
        if here >= n_gpus:
            raise InputError(
                f"Process {here} has no GPU, there are {n_gpus}: start fewer, or give device=cpu"
            )
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


class Processes:
    """Sums and gathers over the ranks. Every rank sees the same global batch and works on its share."""

    def __init__(self, device: torch.device) -> None:
        """Take part in the process group that the caller started, or be alone."""
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1
        self.device = device

    def bounds(self, n_rows: int) -> tuple[int, int]:
        """Return where this rank's rows begin and end; raises InputError when some rank would have none.

        A share begins at an even row: AuxK takes every second row, and must take those that one process would.
        """
        pairs = (n_rows + 1) // 2
        if pairs < self.size:
            raise InputError(
                f"A batch of {n_rows} rows cannot be split over {self.size} processes: "
                f"give at least {2 * self.size - 1} rows"
            )
        low, high = (2 * (rank * pairs // self.size) for rank in (self.rank, self.rank + 1))
        return low, min(high, n_rows)

    def sum_(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in one message per dtype."""
        if self.size == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            chosen = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.flatten() for tensor in chosen])
            dist.all_reduce(flat)
            for tensor, part in zip(chosen, flat.split([tensor.numel() for tensor in chosen]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def total(self, value: float) -> float:
        """Return the sum of ``value`` over the ranks."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor)

    def lowest(self, value: float) -> float:
        """Return the smallest ``value`` over the ranks."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
        return float(tensor)

    def gather(self, vector: Tensor) -> Tensor:
        """Return the ranks' vectors, of any lengths, one after the other."""
        if self.size == 1:
            return vector
        lengths = [torch.zeros(1, dtype=torch.long, device=self.device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(vector)], device=self.device))
        longest = int(torch.cat(lengths).max())
        padded = vector.new_zeros(longest)
        padded[: len(vector)] = vector
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(length)] for part, length in zip(parts, lengths, strict=True)])

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()
