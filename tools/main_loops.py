"""Instructions beside the matrix multiplications in a kernel's main loop, from its disassembly.

A loop is what lies between a backward branch and its target. Where it branches inside, the shortest
way through is counted that calls no special function: prologues with gelu and silu do.
"""

from __future__ import annotations

import dataclasses
import heapq
import importlib.util
import re
import subprocess
from pathlib import Path

# Of exponentials and divisions.
SPECIAL = "MUFU"


@dataclasses.dataclass
class Instruction:
    """An opcode without its modifiers, and where it may jump to."""

    opcode: str
    targets: tuple[str, ...] = ()
    always: bool = False  # jumps or ends, never goes on to the next instruction


def nvdisasm() -> str:
    """Triton's wheel carries it."""
    package = importlib.util.find_spec("triton")
    if package is None or package.origin is None:
        raise SystemExit("kernel_resources: needs triton, for nvdisasm and as the comparison")
    return str(Path(package.origin).parent / "backends/nvidia/bin/nvdisasm")


def disassemble(cubin: Path) -> dict[str, list[str | Instruction]]:
    """Labels and instructions of each kernel, in order."""
    run = subprocess.run([nvdisasm(), "-c", str(cubin)], capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"kernel_resources: {run.stderr}")
    return parse(run.stdout)


def parse(text: str) -> dict[str, list[str | Instruction]]:
    """What nvdisasm printed."""
    kernels: dict[str, list[str | Instruction]] = {}
    for section in re.split(r"\n\s*\.section\s+\.text\.", text)[1:]:
        code: list[str | Instruction] = []
        for line in section.splitlines():
            if label := re.match(r"(\.L_x_\d+):", line):
                code.append(label[1])
            elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+ )?([A-Z][\w.]*)(.*)", line):
                opcode = found[2].split(".")[0]
                jumps = opcode in ("BRA", "BRX", "BRXU", "JMP")
                targets = tuple(re.findall(r"\.L_x_\d+", found[3])) if jumps else ()
                plain = not found[1] and not re.match(r"\s*!?U?P\d", found[3])
                code.append(Instruction(opcode, targets, plain and (jumps or opcode == "EXIT")))
        kernels[section.split(",")[0].strip('"')] = code
    return kernels


@dataclasses.dataclass
class Block:
    """A stretch that is entered and left only at its ends."""

    labels: list[str] = dataclasses.field(default_factory=list)
    body: list[Instruction] = dataclasses.field(default_factory=list)

    def count(self, opcode: str) -> int:
        return sum(item.opcode == opcode for item in self.body)


def basic_blocks(code: list[str | Instruction]) -> list[Block]:
    """The kernel's blocks, in order."""
    blocks = [Block()]
    for item in code:
        if isinstance(item, str):
            if blocks[-1].body:
                blocks.append(Block())
            blocks[-1].labels.append(item)
            continue
        blocks[-1].body.append(item)
        if item.targets or item.always:
            blocks.append(Block())
    return [block for block in blocks if block.body]


def main_loop(blocks: list[Block], index: dict[str, int]) -> tuple[int, int]:
    """First and last block of the smallest loop with the most matrix multiplications."""
    loops = [
        (index[target], i)
        for i, block in enumerate(blocks)
        for target in block.body[-1].targets
        if index.get(target, len(blocks)) <= i
    ]

    def size(loop: tuple[int, int]) -> tuple[int, int]:
        within = blocks[loop[0] : loop[1] + 1]
        return sum(block.count("HMMA") for block in within), -sum(len(b.body) for b in within)

    return max(loops, key=size)


def shortest_turn(code: list[str | Instruction]) -> list[Instruction]:
    """The instructions of one turn of the main loop, without special functions (Dijkstra)."""
    blocks = basic_blocks(code)
    index = {label: i for i, block in enumerate(blocks) for label in block.labels}
    first, last = main_loop(blocks, index)
    ways = [(len(blocks[first].body), [first])]
    done: set[int] = set()
    while ways:
        length, way = heapq.heappop(ways)
        at = way[-1]
        if at == last:
            return [item for i in way for item in blocks[i].body]
        if at in done:
            continue
        done.add(at)
        end = blocks[at].body[-1]
        following = [index[target] for target in end.targets if target in index]
        if not end.always:
            following.append(at + 1)
        for i in following:
            if i < len(blocks) and blocks[i].count(SPECIAL) == 0:
                heapq.heappush(ways, (length + len(blocks[i].body), [*way, i]))
    raise ValueError("every way through the main loop calls a special function")


def overhead(code: list[str | Instruction]) -> float:
    """Instructions that multiply no matrices, for each that does, in one turn of the main loop."""
    path = shortest_turn(code)
    multiplications = sum(item.opcode == "HMMA" for item in path)
    return (len(path) - multiplications) / multiplications
