"""The arithmetic of training on many GPUs: the time that all-reducing gradients adds to a step.

The model: each GPU computes as it would alone; once the backward pass has computed the gradients of
a buffer, a ring all-reduce over all GPUs averages it, one buffer at a time, while the backward pass
continues. A flat ring passes once through every GPU, so each GPU's link and each host's link carry
the same bytes. Bytes, seconds and samples are plain numbers; GB are 10^9 bytes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

BYTES = {"float16": 2, "float32": 4}
HOST_GPUS = 8  # per host; a DGX-2 has 16, behind one switch
ONE_HOST = 16  # up to this many GPUs, the ring is also planned for a single host
FUSION_BYTES, CYCLE_SECONDS = 128 * 2 ** 20, 1e-3  # HOROVOD_FUSION_THRESHOLD, HOROVOD_CYCLE_TIME


@dataclass(frozen=True)
class Link:
    """A link that carries the ring: usable GB/s each way, microseconds per hop."""

    name: str
    gigabytes: float
    hop: float
    between_hosts: bool


# Speeds and hops are those that NCCL plans with (src/graph/topo.h, and hwLat of rings in
# src/graph/tuning.cc): 20 GB/s per NVLink of a V100, which has six; 12 GB/s of 100 Gbit/s.
NVLINK = Link("NVLink", 6 * 20.0, 3.4, False)
LINKS = (Link("PCIe 3", 12.0, 5.7, False), NVLINK, Link("10 Gbit", 1.2, 9.6, True),
         Link("25 Gbit", 3.0, 9.6, True), Link("100 Gbit", 12.0, 9.6, True))


class Published(NamedTuple):
    """Speeds that NVIDIA measured: ResNet-50 v1.5 in MXNet, reading and decoding included."""

    machine: str
    batch: int  # per GPU
    speeds: dict[int, int]  # number of GPUs: images/s of all

    def efficiency(self, gpus: int) -> float:
        """speed(R) / (R * speed(1))."""
        return self.speeds[gpus] / gpus / self.speeds[1]

    def added(self, gpus: int) -> float:
        """By how many seconds a step is longer than on one GPU."""
        return self.batch * (gpus / self.speeds[gpus] - 1 / self.speeds[1])


# NVIDIA/DeepLearningExamples, MxNet/Classification/RN50v1.5/README.md, "Training performance".
PUBLISHED = {
    "float16": (Published("DGX-1 (V100 16 GB)", 192, {1: 1376, 8: 10723}),
                Published("DGX-2 (V100 32 GB)", 256, {1: 1492, 8: 11368, 16: 21484})),
    "float32": (Published("DGX-1 (V100 16 GB)", 96, {1: 384, 8: 3005}),
                Published("DGX-2 (V100 32 GB)", 128, {1: 417, 8: 3223, 16: 6338})),
}


class Buffer(NamedTuple):
    """Gradients that are reduced together."""

    bytes: int
    ready: float  # share of the backward pass after which all of them are computed


def ring_bytes(gradient: int, ranks: int) -> float:
    """Bytes that each link carries each way: 2 (R-1)/R * gradient.

    R-1 hops of gradient / R each sum it up, R-1 more pass it around.
    """
    return 2 * (ranks - 1) * gradient / ranks


def hop_seconds(ranks: int, hosts: int, link: Link) -> float:
    """Latency of a ring all-reduce: 2 (R-1) hops.

    On H hosts 2 (H-1) of them are between hosts and take `link.hop`; the rest are NVLink's. On one
    host all are `link`'s.
    """
    inside = NVLINK.hop if hosts > 1 else link.hop
    return (2 * (hosts - 1) * link.hop + 2 * (ranks - hosts) * inside) * 1e-6


def backward_seconds(step: float) -> float:
    """Seconds of the backward pass: two thirds of a step.

    A layer's multiply-adds are done once in the forward pass and twice in the backward pass: for
    the gradient of its input and for that of its weights.
    """
    return step * 2 / 3


def gradient_buffers(layers: Sequence[Any], count: int, element: int) -> list[Buffer]:
    """Gradients in `count` groups of about equally many layers, in the order they are computed.

    `layers` have `parameters` and `multiply_adds` and are in the order of the forward pass; the
    backward pass visits them in reverse. `element` is the bytes per number.
    """
    total = sum(layer.multiply_adds for layer in layers)
    each, more = divmod(len(layers), count)
    starts = [group * each + min(group, more) for group in range(count + 1)]
    return [Buffer(element * sum(layer.parameters for layer in layers[start:end]),
                   sum(layer.multiply_adds for layer in layers[start:]) / total)
            for start, end in itertools.pairwise(starts)][::-1]


def half_ready(layers: Sequence[Any]) -> float:
    """Share of the backward pass after which half of the gradient's bytes are computed."""
    half, seen = sum(layer.parameters for layer in layers) / 2, 0
    for buffer in gradient_buffers(layers, len(layers), 1):
        seen += buffer.bytes
        if seen >= half:
            return buffer.ready
    return 1.0


def reduced_at(buffers: Sequence[Buffer], backward: float, ranks: int, hosts: int,
               link: Link) -> float:
    """Seconds from the start of the backward pass until the last buffer is reduced.

    One after another: done_k = max(done_(k-1), ready_k * backward) + latency + bytes / speed.
    """
    done = 0.0
    for buffer in buffers:
        carried = ring_bytes(buffer.bytes, ranks) / (link.gigabytes * 1e9)
        done = max(done, buffer.ready * backward) + hop_seconds(ranks, hosts, link) + carried
    return done


def efficiency(step: float, buffers: Sequence[Buffer], ranks: int, hosts: int,
               link: Link) -> float:
    """step / max(step, forward pass + `reduced_at`): the share of R times the speed that is left.
    """
    backward = backward_seconds(step)
    end = step - backward + reduced_at(buffers, backward, ranks, hosts, link)
    return step / max(step, end)


def needed_gigabytes(gradient: int, ranks: int, step: float) -> float:
    """GB/s each way at which the ring takes as long as the backward pass, without latency."""
    return ring_bytes(gradient, ranks) / backward_seconds(step) / 1e9


def fused_buffers(gradient: int, tensors: int, step: float) -> tuple[int, int]:
    """Fewest and most reductions per step with Horovod's defaults.

    The threshold sets the fewest; each cycle starts at most one if nothing waits, so the most are
    the cycles in the backward pass, or the tensors.
    """
    fewest = max(1, math.ceil(gradient / FUSION_BYTES))
    return fewest, max(fewest, min(tensors, int(backward_seconds(step) / CYCLE_SECONDS)))


def linear_lr(batch: int) -> float:
    """The paper's linear scaling: 0.1 * batch / 256."""
    return 0.1 * batch / 256


def recipe(batch: int) -> str:
    """Where ResNet-50 was trained with such a global batch, and reported to lose no accuracy."""
    for most, name in ((1024, "the paper"), (8192, "1706.02677"), (32768, "LARS")):
        if batch <= most:
            return name
    return "none"


def rows(layers: Sequence[Any], dtype: str, batch: int, speed: float, groups: int,
         gpus: Sequence[int] = (8, 16, 32, 64, 128, 256, 512)) -> list[dict[str, Any]]:
    """The plan: a row for each number of GPUs, with `efficiency` by the link's name.

    `speed` is samples/s of one GPU. The efficiency is None if the link cannot carry the ring;
    "nvidia" is what was measured on the smallest machine with that many GPUs.
    """
    step, element = batch / speed, BYTES[dtype]
    gradient = element * sum(layer.parameters for layer in layers)
    buffers = gradient_buffers(layers, groups, element)
    made = []
    for ranks in gpus:
        hosts = -(-ranks // HOST_GPUS)
        found = {}
        for link in LINKS:
            fits = hosts > 1 if link.between_hosts else ranks <= ONE_HOST
            spread = hosts if link.between_hosts else 1
            found[link.name] = efficiency(step, buffers, ranks, spread, link) if fits else None
        nvidia = [one.efficiency(ranks) for one in PUBLISHED[dtype] if ranks in one.speeds]
        made.append({"gpus": ranks, "hosts": hosts, "batch": ranks * batch,
                     "lr": linear_lr(ranks * batch), "recipe": recipe(ranks * batch),
                     "link_bytes": ring_bytes(gradient, ranks),
                     "needed_gigabytes": needed_gigabytes(gradient, ranks, step),
                     "efficiency": found, "nvidia": nvidia[0] if nvidia else None})
    return made
