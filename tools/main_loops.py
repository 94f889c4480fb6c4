"""Instructions beside the matrix multiplications in a kernel's main loop, from its disassembly.

A loop is what lies between a backward branch and its target. Where it branches inside, the path of
relu is counted: what relu takes are comparisons and selections without a multiplication.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
from pathlib import Path

SELECTS = ("FSEL", "FSETP", "FMNMX")
MULTIPLIES = ("FMUL", "FFMA", "MUFU")


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


def main_loop(code: list[str | Instruction]) -> list[str | Instruction]:
    """The smallest loop with the most matrix multiplications, from its label to its branch."""
    at = {item: i for i, item in enumerate(code) if isinstance(item, str)}
    loops = [
        code[at[target] : i + 1]
        for i, item in enumerate(code)
        if isinstance(item, Instruction)
        for target in item.targets
        if at.get(target, i) < i
    ]

    def multiplications(loop: list[str | Instruction]) -> int:
        return sum(isinstance(item, Instruction) and item.opcode == "HMMA" for item in loop)

    return max(loops, key=lambda loop: (multiplications(loop), -len(loop)))


def relu_path(loop: list[str | Instruction]) -> list[Instruction]:
    """The instructions of one turn: most selections without multiplication, else the fewest."""
    blocks: list[tuple[list[str], list[Instruction]]] = []
    for item in loop:
        if isinstance(item, str):
            if blocks and not blocks[-1][1]:
                blocks[-1][0].append(item)
            else:
                blocks.append(([item], []))
            continue
        blocks[-1][1].append(item)
        if item.targets or item.always:
            blocks.append(([], []))
    index = {label: i for i, (labels, _) in enumerate(blocks) for label in labels}
    # Best way to the start of each block: (selections, -instructions) and the block before.
    best: dict[int, tuple[tuple[int, int], int]] = {0: ((0, 0), -1)}
    last = max(i for i, (_, body) in enumerate(blocks) if body)
    for i, (_, body) in enumerate(blocks[: last + 1]):
        if i not in best:
            continue
        opcodes = [item.opcode for item in body]
        selects = sum(opcode in SELECTS for opcode in opcodes)
        if any(opcode in MULTIPLIES for opcode in opcodes):
            selects = 0
        score = (best[i][0][0] + selects, best[i][0][1] - len(body))
        following = (
            [index[target] for target in body[-1].targets if target in index] if body else []
        )
        if not body or not body[-1].always:
            following.append(i + 1)
        for j in following:
            if j > i and (j not in best or score > best[j][0]):
                best[j] = (score, i)
    path, i = [], last
    while i >= 0:
        path = blocks[i][1] + path
        i = best[i][1]
    return path


def overhead(code: list[str | Instruction]) -> float:
    """Instructions that multiply no matrices, for each that does, in one turn of the main loop."""
    path = relu_path(main_loop(code))
    multiplications = sum(item.opcode == "HMMA" for item in path)
    return (len(path) - multiplications) / multiplications
