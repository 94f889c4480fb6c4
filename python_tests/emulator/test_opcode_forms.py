"""Every row of the opcode tables, and every modifier its decoder knows, has a case in these tests.

The rows and modifiers are read from the C++ sources; the cases are the PTX that the tests of single
opcodes launch.
"""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict

from toolchains import ROOT, SOURCES

OPCODES = ("integer", "float", "convert", "move", "memory", "matrix", "warp", "control")
CASES = (*(f"{name}_ops" for name in OPCODES), "detectors", "modifiers")
# Modifiers that a decoder takes only to refuse them, or for another opcode that shares it.
REFUSED = {
    "cluster": "bar barrier",
    "proxy": "fence membar",
    "bulk": "cp",
    "approx": "add sub mul fma mad",
    "full": "add sub mul fma mad rcp sqrt",
    "rna": "add sub mul fma mad div rcp sqrt",
    "sat": "div rcp sqrt",
    "shiftamt": "clz popc",
    "hi": "dp4a",
    "lo": "dp4a",
    "nc": "st cp",
    "acquire": "st ldu",
    "release": "ld ldu",
    "ftz": "tanh",
    "relu": "mad",
    "warp": "barrier",
    "sc": "membar",
    "cas": "red",
    "exch": "red",
}
# Words that mean the same everywhere: one case in all is enough. Among them state spaces of opcodes
# that take any of them through one function, cache hints, and scopes as wide as the device.
ANYWHERE = {
    word
    for line in (
        "const local global shared param param::entry param::func shared::cta cluster gl gpu sys",
        "cta weak mmio relaxed acquire release acq_rel volatile ca cg cs cv lu wb wt nc aligned",
        "uni sync v2 v4 v8 noftz L2::cache_hint L1::evict_normal L1::evict_unchanged",
        "L1::evict_first L1::evict_last L1::no_allocate L2::evict_normal L2::evict_first",
        "L2::evict_last L2::64B L2::128B L2::256B",
    )
    for word in line.split()
}
RECORD = """
import json, sys, pytest
from resnet_kernels import emulator
found, run = set(), emulator.launch
def launch(ptx, *args, **kwargs):
    body = ptx.split("{", 1)[-1] if ".entry" in ptx else ""
    for statement in body.replace("{", ";").replace("}", ";").split(";"):
        code = " ".join(line.split("//")[0] for line in statement.splitlines())
        words = [w for w in code.split() if not w.startswith(("@", "$", "%")) and w[-1] != ":"]
        if words:
            found.add(words[0])
    return run(ptx, *args, **kwargs)
emulator.launch = launch
status = pytest.main(["-q", "-p", "no:cacheprovider", "--tb=no", *sys.argv[2:]])
json.dump(sorted(found), open(sys.argv[1], "w"))
sys.exit(status)
"""


def functions():
    """Bodies of the C++ functions, those of one name joined."""
    bodies = defaultdict(str)
    pattern = (
        r"^[\w:<>,&* ]+?\b(?:InstrBuilder::)?(\w+)\([^;{}]*\)(?: const)? \{(\n.*?^\}|[^\n]*\}$)"
    )
    for path in SOURCES.glob("*.cpp"):
        for match in re.finditer(pattern, path.read_text(), re.M | re.S):
            bodies[match[1]] += match[2]
    return bodies


def vocabulary(name, bodies, seen):
    """Modifiers that a decode function and the functions it calls ask for."""
    if name in seen or name not in bodies:
        return set()
    seen.add(name)
    body, words = bodies[name], set()
    for match in re.finditer(r"(?:take|flag)\(\"([^\"]+)\"", body):
        words.add(match[1])
    for match in re.finditer(r"take_any\(\s*(\{[^}]*\})", body):
        words |= set(ast.literal_eval(match[1]))
    for callee in re.findall(r"\b(\w+)[(;,)]", body):
        words |= vocabulary(callee, bodies, seen)
    return words


def table_rows():
    """opcode -> decode function, from the tables in ops_*.cpp."""
    row = r"\{\"(\w+)\",\s*OpClass::\w+,\s*(\w+)(?:<\w+>)?\}"
    return {
        m[1]: m[2] for path in SOURCES.glob("ops_*.cpp") for m in re.finditer(row, path.read_text())
    }


def test_every_opcode_and_modifier_has_a_case(tmp_path):
    out = tmp_path / "cases.json"
    files = [f"python_tests/emulator/test_{name}.py" for name in CASES]
    subprocess.run([sys.executable, "-c", RECORD, str(out), *files], cwd=ROOT, check=True)
    used = defaultdict(set)
    for instruction in json.loads(out.read_text()):
        opcode, *modifiers = instruction.split(".")
        used[opcode] |= set(modifiers)
        used[opcode] |= {f"{a}::{b}" for m in modifiers for a, _, b in [m.partition("::")] if b}
    bodies, rows = functions(), table_rows()
    assert len(rows) > 80
    everywhere = set().union(*used.values())
    missing = {(opcode, "") for opcode in set(rows) - set(used)}
    for opcode, function in rows.items():
        for word in vocabulary(function, bodies, set()) - used[opcode]:
            if opcode in REFUSED.get(word, "").split() or word in ANYWHERE & everywhere:
                continue
            missing.add((opcode, word))
    assert not missing, " ".join(sorted(f"{opcode}.{word}" for opcode, word in missing))
