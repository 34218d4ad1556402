"""What a function that a user wrote names, and whether all that it reads can be found by those names.

A name is refused that gives what nobody wrote down: clocks, files, random numbers, imports, namespaces. It reads byte
code, and no values.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

# Built-in functions by which code reads what it does not name. `type` makes objects whose `__init__` is not read.
REFUSED_BUILTINS = frozenset(
    {
        *("eval", "exec", "compile", "__import__", "globals", "vars", "locals", "open", "input", "breakpoint", "dir"),
        *("id", "type", "repr", "getattr", "hasattr", "__builtins__", "__loader__", "__spec__"),
    }
)
_ON_SELF = frozenset({"getattr", "hasattr"})
# Where Python keeps what a name would say.
_REFLECTING = frozenset(
    {
        *("__globals__", "__dict__", "__builtins__", "__subclasses__", "__closure__", "__code__", "__getattribute__"),
        *("__getattr__", "__class__", "__import__", "__loader__", "__spec__", "__annotations__", "__wrapped__"),
        *("__reduce__", "__reduce_ex__", "__getstate__", "__mro__", "__bases__", "__module__", "cell_contents"),
        *("__slots__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__orig_bases__", "__repr__"),
        *("f_globals", "f_locals", "f_back", "f_builtins", "gi_frame", "cr_frame", "ag_frame", "tb_frame"),
    }
)
# What libraries draw at random.
_RANDOM = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "random", "random_"),
        *("normal", "normal_", "uniform", "uniform_", "bernoulli", "bernoulli_", "multinomial", "poisson", "choice"),
        *("exponential_", "geometric_", "cauchy_", "log_normal_", "shuffle", "default_rng", "seed", "initial_seed"),
        *("get_rng_state",),
    }
)
# What libraries read from elsewhere, and operators that somebody may have registered.
_ELSEWHERE = frozenset(
    {
        *("load", "fromfile", "loadtxt", "genfromtxt", "memmap", "imread", "read_image", "read_file", "from_file"),
        *("from_pretrained", "load_state_dict_from_url", "hub", "environ", "getenv", "read_text", "read_bytes"),
        *("perf_counter", "monotonic", "time_ns", "now", "today", "urlopen", "ops", "_ops", "load_file", "time"),
    }
)
_REFUSED = _RANDOM | _ELSEWHERE
_LOADS = frozenset(
    {
        *("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"),
        *("LOAD_FROM_DICT_OR_GLOBALS", "LOAD_FROM_DICT_OR_DEREF"),
    }
)
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_BETWEEN = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "PRECALL"})


@dataclass(frozen=True, slots=True)
class Named:
    """What a function names, those that are written within it too.

    Attributes:
        names: all names, of attributes too.
        outside: those that it looks for outside of itself.
        handed_on: of these, those that it does not only take attributes of.
        refused: why what it reads cannot be found by names; None where it can.
    """

    names: tuple[str, ...]
    outside: tuple[str, ...]
    handed_on: frozenset[str]
    refused: str | None


# By id, since code hashes all that it holds, each time; with the code, or another could get the id.
_known: dict[int, tuple[CodeType, Named]] = {}
_MOST = 10_000


def named_in(code: CodeType) -> Named:
    """What the code of a function names, read once for each code."""
    found = _known.get(id(code))
    if found is None:
        if len(_known) >= _MOST:
            _known.clear()
        found = _known[id(code)] = code, _read(code)
    return found[1]


def _read(code: CodeType) -> Named:
    names: dict[str, None] = {}
    outside: dict[str, None] = {}
    handed_on: set[str] = set()
    refused: str | None = None
    generated = code.co_filename == "<string>"  # what dataclasses write compares classes, and makes none
    for each in _all_code(code):
        steps = [step for step in dis.get_instructions(each) if step.opname not in _BETWEEN]
        names |= dict.fromkeys(each.co_names)
        for i, step in enumerate(steps):
            name, after = step.argval, steps[i + 1] if i + 1 < len(steps) else None
            if step.opname.startswith("IMPORT_"):
                refused = f"it imports {name}"
            elif step.opname in _ATTRIBUTES:
                if (name in _REFLECTING and not (generated and name == "__class__")) or name in _REFUSED:
                    refused = f"it uses .{name}"
            elif step.opname in _LOADS and not name.startswith("@"):  # pytest's own, in a rewritten assertion
                outside[name] = None
                if after is None or after.opname not in _ATTRIBUTES:
                    handed_on.add(name)
                if name in REFUSED_BUILTINS | _REFUSED and not generated:
                    refused = refused if name in _ON_SELF and _is_self(after, each) else f"it uses {name}"
    return Named(tuple(names), tuple(outside), frozenset(handed_on), refused)


def _is_self(step: dis.Instruction | None, code: CodeType) -> bool:
    """Whether a step loads `self`, all of which is read, whatever the attribute is called."""
    if step is None or not step.opname.startswith("LOAD_FAST") or code.co_varnames[:1] != ("self",):
        return False
    first = step.argval[0] if isinstance(step.argval, tuple) else step.argval
    return bool(first == "self")


def _all_code(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_code(constant)
