"""The kinds of devices that a plan knows, by their published figures.

Figures are those of the vendor for dense products (data sheets of NVIDIA A100 80GB SXM, H100 SXM, H200 SXM and L4, and
the white paper of the Ada architecture for RTX 4090). Bandwidths count one direction: half of what a data sheet gives
for NVLink and PCIe. Nodes with NVLink are NVIDIA's DGX (8 adapters of 200 or 400 Gbit/s); the networks of the other two
kinds are assumed: 100 Gbit/s for L4, 10 Gbit/s for RTX 4090.
"""

import difflib
from dataclasses import dataclass

from qa_lm.errors import UserError

GB, GB_PER_SECOND, TFLOPS = 1e9, 1e9, 1e12
HERE = "here"
"""Name of this machine's own device, whose steps are measured."""
CONTEXT = 1.5 * GB
"""Bytes of a GPU's memory that CUDA, its libraries and NCCL take."""
ACHIEVED = 0.8
"""Share of a published bandwidth that transfers reach."""
GLOO = 0.8 * GB_PER_SECOND
"""Bytes per second of gloo's all-reduce between two processes of one machine. Measured: docs/log.md, "a plan and the
runs"."""
ETHERNET = 1.25 * GB_PER_SECOND
"""Bytes per second of a network of 10 Gbit/s, which is assumed where no other is known."""


@dataclass(frozen=True)
class Device:
    """A kind of device and how several of them are connected. Bytes, operations and bytes per second."""

    name: str
    memory: float
    bfloat16: float
    """Operations per second of dense bfloat16 products; 0 if it is measured."""
    float32: float
    """The same for float32, without TF32."""
    memory_bandwidth: float
    per_node: int
    """Devices of a node."""
    node_bandwidth: float
    """Bandwidth of a device to the others of its node, in one direction."""
    network_bandwidth: float
    """Bandwidth of a node to other nodes, in one direction. A ring crosses the network once per node, so that all
    devices of a node share all of it."""
    program: float = CONTEXT
    """Memory that the program takes apart from the model."""
    achieved: float = ACHIEVED
    """Share of both bandwidths that transfers reach."""
    overlaps: bool = True
    """Whether gradients are transferred during the backward pass. The processes of a CPU copy with the cores that
    compute."""
    shared_memory: bool = False
    """Whether `memory` is the memory of the whole node, as on a CPU."""

    def bandwidth(self, devices: int) -> float:
        """Bytes per second that a ring of devices reaches."""
        slowest = self.node_bandwidth if devices <= self.per_node else min(self.node_bandwidth, self.network_bandwidth)
        return self.achieved * slowest

    def memory_for(self, devices: int) -> float:
        """Bytes of memory that each device has."""
        return self.memory / min(devices, self.per_node) if self.shared_memory else self.memory


def _gpu(
    name: str, memory: float, bfloat16: float, float32: float, own: float, node: float, network: float, per_node: int
) -> Device:
    """A GPU from GB, TFLOP/s and GB/s."""
    rates = (own * GB_PER_SECOND, per_node, node * GB_PER_SECOND, network * GB_PER_SECOND)
    return Device(name, memory * GB, bfloat16 * TFLOPS, float32 * TFLOPS, *rates)


KINDS = {
    "a100": _gpu("A100 80GB SXM", 80, 312, 19.5, 2039, 300, 200, 8),
    "h100": _gpu("H100 SXM", 80, 989, 67, 3350, 450, 400, 8),
    "h200": _gpu("H200 SXM", 141, 989, 67, 4800, 450, 400, 8),
    "l4": _gpu("L4", 24, 121, 30.3, 300, 32, 12.5, 8),
    "rtx4090": _gpu("RTX 4090", 24, 165, 82.6, 1008, 32, 1.25, 4),
}
"""GPUs by name: GB of memory; TFLOP/s in bfloat16 and float32; GB/s of its memory, within a node and between nodes."""


def kind(name: str) -> Device:
    """Return a known kind of device.

    Raises:
        UserError: there is no such kind; the message names all of them.
    """
    key = name.lower().replace("-", "").replace("_", "").replace(" ", "")
    if key in KINDS:
        return KINDS[key]
    names = [HERE, *KINDS]
    close = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"--device {name}: no such kind; {hint}the kinds are {', '.join(names)}; for another one, give its figures: "
        "--device h100 --memory 192 --tflops 2250"
    )
