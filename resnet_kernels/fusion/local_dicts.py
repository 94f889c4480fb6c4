"""Which stores of a function go into a dict that it has made itself, to return results in.

Nobody else sees such a store, so recording the function once is as good as running it.
"""

from __future__ import annotations

import builtins
import dis
import re
import types
from collections import OrderedDict
from typing import Any

_MAKERS = (dict, OrderedDict)
# What moves values on the stack, so that the last ones pushed are not the last ones written.
_SHUFFLES = ("COPY", "SWAP", "DUP_TOP", "ROT_")
# Not in the way between a value and its use; the first two of Python 3.11 alone.
_NO_OPERATION = ("PRECALL", "CACHE", "NOP", "EXTENDED_ARG")


def own_dict_stores(code: types.CodeType, scope: dict[str, Any]) -> frozenset[int]:
    """Offsets of the STORE_SUBSCR in code whose container is a dict that the code has made.

    Such is a local variable, no argument and not shared with inner functions, that only ever gets
    `{...}`, `dict()` or `OrderedDict()`. What is not certain is left out. scope: the globals.
    """
    steps = [i for i in dis.get_instructions(code) if i.opname not in _NO_OPERATION]
    own = _own_dicts(code, steps, scope)
    return frozenset(
        step.offset
        for index, step in enumerate(steps)
        if step.opname == "STORE_SUBSCR" and _container(steps, index) in own
    )


def _variables(step: dis.Instruction, action: str) -> list[str]:
    """Local variables that an instruction loads or stores; 3.13 has some for two at once."""
    actions = re.findall("(LOAD|STORE|DELETE)_FAST", step.opname)
    names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return [name for name, done in zip(names, actions, strict=False) if done == action]


def _own_dicts(
    code: types.CodeType, steps: list[dis.Instruction], scope: dict[str, Any]
) -> set[str]:
    stored: set[str] = set()
    other = {*code.co_cellvars, *_arguments(code)}
    for index, step in enumerate(steps):
        for place, name in enumerate(_variables(step, "STORE")):
            made = place == 0 and not step.is_jump_target and _makes_dict(steps, index, scope)
            (stored if made else other).add(name)
    return stored - other


def _arguments(code: types.CodeType) -> tuple[str, ...]:
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)  # *args, **kwargs
    return code.co_varnames[:count]


def _makes_dict(steps: list[dis.Instruction], index: int, scope: dict[str, Any]) -> bool:
    """Whether what instruction `index` stores is a new dict."""
    if index >= 1 and steps[index - 1].opname == "BUILD_MAP":
        return True
    if index < 2 or steps[index - 1].opname not in ("CALL", "CALL_FUNCTION"):
        return False
    callee = steps[index - 2]
    if steps[index - 1].arg != 0 or callee.opname != "LOAD_GLOBAL":
        return False
    name = str(callee.argval)
    called = scope.get(name, getattr(builtins, name, None))
    return any(called is maker for maker in _MAKERS)


def _container(steps: list[dis.Instruction], index: int) -> str | None:
    """The variable that STORE_SUBSCR number `index` stores into, if it is one for certain.

    The stack holds value, container, key: the instructions before are followed back until they
    have pushed one value, the key.
    """
    pushed = 0
    while pushed != 1:
        index -= 1
        step = steps[index]
        if index < 1 or steps[index + 1].is_jump_target or step.opname.startswith(_SHUFFLES):
            return None
        if step.opcode in (*dis.hasjrel, *dis.hasjabs):
            return None
        loads = _variables(step, "LOAD")
        if len(loads) == 2 and pushed == 0:  # container and key at once
            return loads[0]
        pushed += dis.stack_effect(step.opcode, step.arg)
        if pushed > 1:
            return None
    loads = _variables(steps[index - 1], "LOAD")
    return loads[-1] if loads and not steps[index].is_jump_target else None
