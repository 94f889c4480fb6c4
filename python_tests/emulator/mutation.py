"""Takes the synchronisation out of PTX, one instruction at a time."""

import re
from collections.abc import Callable, Iterator

from resnet_kernels import emulator

SYNCHRONISES = re.compile(r"\b(bar|barrier)\.|\bcp\.async\.wait|\bmembar\b|\bfence\.|\bmbarrier\.")
ORDERING_KINDS = {"race", "uninitialised", "async_copy", "barrier", "deadlock"}


def mutants(ptx: str, kernel: str) -> Iterator[tuple[str, str]]:
    """Name and text of each mutant: an instruction deleted, or a wait count raised by one.

    The name is the mutation, the instruction, and which one of its kind it is in the kernel.
    """
    lines = ptx.splitlines()
    start = next(i for i, line in enumerate(lines) if re.search(rf"\.entry {kernel}\b", line))
    end = next((i for i in range(start + 1, len(lines)) if ".entry" in lines[i]), len(lines))
    seen: dict[str, int] = {}
    for i in range(start, end):
        code = re.sub(r"\s+", " ", lines[i].split("//")[0]).strip()
        if not SYNCHRONISES.search(code):
            continue
        seen[code] = seen.get(code, 0) + 1
        name = f"{code} #{seen[code]}"
        yield f"delete {name}", "\n".join([*lines[:i], "//", *lines[i + 1 :]])
        if count := re.search(r"wait_group (\d+)", code):
            raised = lines[i].replace(count[1], str(int(count[1]) + 1))
            yield f"raise {name}", "\n".join([*lines[:i], raised, *lines[i + 1 :]])


def survivors(ptx: str, kernel: str, run: Callable[[str, int], object], seeds: int = 3) -> set[str]:
    """Names of the mutants that no seed reports; `run` launches a PTX text with a seed."""
    found = set()
    for name, text in mutants(ptx, kernel):
        for seed in range(seeds):
            try:
                run(text, seed)
            except emulator.EmulatorError as e:
                assert e.kind in ORDERING_KINDS, (name, e)
                break
        else:
            found.add(name)
    return found


ACCESSES = {
    "copy": re.compile(r"\bcp\.async\.c[ag]\."),
    "read": re.compile(r"\b(ld\S*\.shared|ldmatrix|wmma\.load\S*\.shared|atom\S*\.shared)"),
    "write": re.compile(r"\b(st\S*\.shared|stmatrix|wmma\.store\S*\.shared|atom\S*\.shared)"),
}
BARRIER = re.compile(r"\b(bar|barrier)\.(cta\.)?sync|\bret;|\bexit;")
COMMIT = re.compile(r"\bcp\.async\.commit_group")
WAIT = re.compile(r"\bcp\.async\.wait_(all|group\s+(\d+))")


class Flow:
    """What may run before and after a line of a kernel without calls."""

    def __init__(self, ptx: str, start: int, end: int) -> None:
        self.lines = [line.split("//")[0] for line in ptx.splitlines()[:end]]
        labels = {
            m[1]: i for i in range(start, end) if (m := re.match(r"\s*(\$\w+):", self.lines[i]))
        }
        self.after: dict[int, list[int]] = {}
        for i in range(start, end):
            branch = re.search(r"\bbra(\.uni)?\s+(\$\w+)", self.lines[i])
            falls = not branch or "@" in self.lines[i]
            self.after[i] = [labels[branch[2]]] if branch else []
            self.after[i] += [i + 1] if falls and i + 1 < end else []
        self.before: dict[int, list[int]] = {i: [] for i in range(start, end)}
        for i, successors in self.after.items():
            for s in successors:
                self.before[s].append(i)

    def walk(self, line: int, back: bool, stop: re.Pattern[str]) -> tuple[set[int], set[int]]:
        """Lines before or after `line` up to those that match `stop`, and these."""
        edges = self.before if back else self.after
        seen, stops, open_ = set(), set(), list(edges[line])
        while open_:
            i = open_.pop()
            if i in seen or i in stops:
                continue
            if stop.search(self.lines[i]):
                stops.add(i)
            else:
                seen.add(i)
                open_ += edges[i]
        return seen, stops

    def accesses(self, lines: set[int]) -> set[str]:
        return {k for k, p in ACCESSES.items() for i in lines if p.search(self.lines[i])}


def redundancy(ptx: str, kernel: str, name: str) -> str | None:
    """Which argument of redundant_synchronisation.txt holds for a mutant, or None."""
    lines = ptx.splitlines()
    start = next(i for i, line in enumerate(lines) if re.search(rf"\.entry {kernel}\b", line))
    end = next((i for i in range(start + 1, len(lines)) if ".entry" in lines[i]), len(lines))
    code, number = re.fullmatch(r"(?:delete|raise) (.*) #(\d+)", name).groups()  # type: ignore[union-attr]
    same = [i for i in range(start, end) if re.sub(r"\s+", " ", lines[i]).strip() == code]
    line, flow = same[int(number) - 1], Flow(ptx, start, end)
    if wait := WAIT.search(lines[line]):
        own = int(wait[2] or 0)
        stop = re.compile(f"{WAIT.pattern}|{COMMIT.pattern}")
        _, before = flow.walk(line, True, stop)
        waits = [WAIT.search(lines[i]) for i in before]
        if waits and all(w and int(w[2] or 0) <= own for w in waits):
            return "wait already done"
        passed, after = flow.walk(line, False, stop)
        waits = [WAIT.search(lines[i]) for i in after]
        done = all(w and int(w[2] or 0) <= own for w in waits)
        if (
            waits
            and done
            and not flow.accesses(passed)
            and not any(BARRIER.search(lines[i]) for i in passed)
        ):
            return "wait done next"
        if name.startswith("raise") and own == 0 and not flow.walk(line, False, COMMIT)[1]:
            return "newest group only"
        return None
    before = flow.accesses(flow.walk(line, True, BARRIER)[0])
    after = flow.accesses(flow.walk(line, False, BARRIER)[0])
    if not before or not after:
        return "nothing to separate"
    if before == after == {"read"}:
        return "reads only"
    if before == after == {"copy"}:
        return "copies only"
    return None
