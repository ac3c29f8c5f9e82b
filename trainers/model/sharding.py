"""A frozen backbone that is too large for one device: each worker holds a part of every layer (FSDP2).

A layer is gathered for the moment of its forward pass, and again for that of its backward pass. All workers take part
in each gathering, so all have to make the same number of passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trainers.device import rank_and_workers

Step = Callable[[Tensor], Tensor]


class _Gathered(nn.Module):
    """Around a layer, which is taken apart elsewhere: `fully_shard` gathers the weights in it when this is called."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, step: Step, x: Tensor) -> Tensor:
        return step(x)


class ShardedLayers:
    """Layers of a frozen model, divided among the workers of the process group.

    Args:
        layers: whole, on any device.
        device: where this worker's parts lie from now on.
    """

    def __init__(self, layers: Sequence[nn.Module], device: torch.device) -> None:
        mesh = init_device_mesh(device.type, (rank_and_workers()[1],))
        self._device = device
        self._layers = [_Gathered(layer) for layer in layers]
        self._differ = False
        for layer in self._layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)

    def run(self, index: int, step: Step, x: Tensor) -> Tensor:
        """`step(x)` while layer `index` is whole."""
        if self._differ and index == 0:
            self._at_work(1)
        if not torch.is_inference_mode_enabled():
            return self._gather(index, step, x)
        # What is gathered is kept for later passes, which may want gradients.
        with torch.inference_mode(False), torch.no_grad():
            return self._gather(index, torch.inference_mode()(step), x)

    @contextmanager
    def passes_that_differ(self) -> Iterator[None]:
        """Within it each worker may make as many passes as it likes, without gradients: who is done attends the rest.

        Every worker must enter it.
        """
        self._differ = True
        try:
            yield
        finally:
            self._differ = False
        nothing = torch.zeros(0, device=self._device)
        with torch.no_grad():
            while self._at_work(0):
                for index in range(len(self._layers)):
                    self._gather(index, lambda x: x, nothing)

    def _gather(self, index: int, step: Step, x: Tensor) -> Tensor:
        y: Tensor = self._layers[index](step, x)
        return y

    def _at_work(self, mine: int) -> int:
        """How many workers are at the beginning of a pass."""
        passes = torch.tensor(mine, device=self._device)
        dist.all_reduce(passes)
        return int(passes)
