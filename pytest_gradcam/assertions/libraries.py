"""Namespaces of installed libraries: whether they are still what the libraries defined, and the same as before.

A namespace, of a module or a class, is watched as a whole: what its names are bound to, and the code of its functions.
What a user put into one is not looked through, but refused. It knows neither models nor what users wrote.
"""

from __future__ import annotations

import operator
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

# Packages that do not read clocks, files or the environment while a model runs. All others are read as a user's code.
TRUSTED = frozenset(
    {
        *("torch", "torchvision", "timm", "transformers", "numpy", "PIL", "cv2", "scipy", "safetensors", "einops"),
        *("huggingface_hub", "tokenizers", "torchgen", "functorch", "pytest_gradcam"),
    }
)
# Of Python's own modules, those whose functions give the same for the same.
PURE = frozenset(
    {
        *("builtins", "math", "cmath", "functools", "typing", "types", "collections", "itertools", "operator", "copy"),
        *("enum", "dataclasses", "abc", "numbers", "contextlib", "warnings", "re", "string", "fractions", "bisect"),
        *("heapq", "copyreg", "_abc", "_collections", "_collections_abc", "_functools", "_operator", "_typing"),
    }
)
# Namespaces that are remembered; more of them are made by whoever makes classes in a loop.
_MOST = 4096

_CODE = operator.attrgetter("__code__")
_DEFAULTS = operator.attrgetter("__defaults__")

Namespace = Mapping[str, Any]


class Unreadable(Exception):
    """Something of which nobody can tell whether it is what it was."""


@cache
def is_pythons(name: str | None) -> bool:
    """Whether a Python module comes with Python."""
    root = (name or "").partition(".")[0]
    return root == "builtins" or root in sys.stdlib_module_names - {"__main__"}


def is_library(name: str | None) -> bool:
    """Whether a Python module is Python's own or of an installed package that is trusted."""
    return is_pythons(name) or _is_of(name, TRUSTED)


def is_pure(name: str | None) -> bool:
    """Whether what a Python module's functions give is decided by what they are given."""
    return not is_pythons(name) or (name or "").partition(".")[0] in PURE


def watch(namespace: Namespace, owner: object) -> object:
    """One object for as long as a namespace of a library stays as it is.

    Args:
        namespace: of a module or a class.
        owner: what stands for the namespace, since a class makes another view of its own each time.

    Raises:
        Unreadable: somebody has put something of their own there.
    """
    return _snapshot(namespace, owner)


def watch_class(cls: type) -> Iterator[object]:
    """As `watch`, of a class and of what its methods name.

    Raises:
        Unreadable: somebody has put something of their own there.
    """
    found = _snapshot(vars(cls), cls)
    yield found
    if not is_pythons(cls.__module__):
        for namespace in found.linked():
            yield _snapshot(namespace, namespace)


def watch_function(function: FunctionType) -> Iterator[object]:
    """As `watch`, of what a library's function names.

    Raises:
        Unreadable: somebody has put something of their own there.
    """
    if not is_pythons(function.__globals__.get("__name__")):
        for namespace in _named_by(function):
            yield _snapshot(namespace, namespace)


class _Snapshot:
    """What a namespace held. It holds all that it saw, or something else could get the same id."""

    __slots__ = ("_codes", "_defaults", "_functions", "_keys", "_linked", "_values", "foreign", "owner")

    def __init__(self, namespace: Namespace, owner: object) -> None:
        self.owner = owner
        self._keys, self._values = list(namespace), list(namespace.values())
        self._functions = [each for value in self._values for each in _functions_of(value)]
        self._codes = [each.__code__ for each in self._functions]
        self._defaults = [each.__defaults__ for each in self._functions]
        self._linked: list[Namespace] | None = None
        self.foreign = next((k for k, v in zip(self._keys, self._values, strict=True) if _is_foreign(v, set())), None)

    def holds(self, namespace: Namespace) -> bool:
        """Whether the namespace is as it was, but for submodules of its own that were imported since."""
        return (
            (len(namespace) == len(self._keys) or self._extend(namespace))
            and all(map(operator.is_, namespace.values(), self._values))
            and all(map(operator.eq, namespace, self._keys))
            and all(map(operator.is_, map(_CODE, self._functions), self._codes))
            and all(map(operator.is_, map(_DEFAULTS, self._functions), self._defaults))
        )

    def _extend(self, namespace: Namespace) -> bool:
        """Take in what was added since; whether that is nothing but what importing and warning leave behind."""
        added = list(namespace.items())[len(self._keys) :]
        if not isinstance(self.owner, dict):
            return False
        for name, value in added:
            of_import = sys.modules.get(f"{namespace.get('__name__')}.{name}") is value and not _is_foreign(
                value, set()
            )
            if name != "__warningregistry__" and not of_import:
                return False
        self._keys += [name for name, _ in added]
        self._values += [value for _, value in added]
        return len(namespace) == len(self._keys)

    def linked(self) -> list[Namespace]:
        """The namespaces that the functions of this one name."""
        if self._linked is None:
            found = {id(space): space for function in self._functions for space in _named_by(function)}
            self._linked = list(found.values())
        return self._linked


_snapshots: dict[int, _Snapshot] = {}


def _snapshot(namespace: Namespace, owner: object) -> _Snapshot:
    found = _snapshots.get(id(owner))
    if found is None or found.owner is not owner or not found.holds(namespace):
        if len(_snapshots) >= _MOST:
            _snapshots.clear()
        found = _snapshots[id(owner)] = _Snapshot(namespace, owner)
    if found.foreign is not None:
        raise Unreadable(f"{found.foreign} of {getattr(owner, '__name__', namespace.get('__name__'))} was patched")
    return found


def _named_by(function: FunctionType) -> list[Namespace]:
    """The namespaces that a library's function reads: its own, those of modules and functions that it names."""
    own = function.__globals__
    if is_pythons(own.get("__name__")):
        return []
    names = names_in(function.__code__)
    found: dict[int, Namespace] = {id(own): own}
    spaces: list[Namespace] = [own]
    for space in spaces:
        for name in names:
            value = space.get(name)
            if isinstance(value, ModuleType):
                there = vars(value)
            elif space is own and type(value) is FunctionType:
                there = value.__globals__
            else:
                continue
            module = there.get("__name__")
            if id(there) not in found and is_library(module) and not is_pythons(module):
                found[id(there)] = there
                if isinstance(value, ModuleType):
                    spaces.append(there)
    return list(found.values())


@cache
def names_in(code: CodeType) -> tuple[str, ...]:
    """The names that a function uses, those of the functions in it too."""
    inside = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in names_in(constant)]
    return tuple(dict.fromkeys([*code.co_names, *inside]))


def _functions_of(value: Any) -> Iterator[FunctionType]:
    kind = type(value)  # asked of the type, since a proxy answers `isinstance` for what it stands for, and may warn
    if issubclass(kind, staticmethod | classmethod):
        value = value.__func__
    parts = (value.fget, value.fset) if issubclass(kind, property) else (value,)
    yield from (part for part in parts if type(part) is FunctionType)


def _is_foreign(value: Any, seen: set[int]) -> bool:
    """Whether something that a library's namespace holds was made by nobody that the library knows."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    kind = type(value)
    if kind is FunctionType:
        name = value.__globals__.get("__name__")
        # collections.namedtuple makes its functions in a namespace of this name
        if not _is_known(name) and not str(name).startswith("namedtuple_"):
            return True
        return any(_is_foreign(each, seen) for each in _cells(value) if callable(each))
    within: tuple[object, ...] = ()
    if issubclass(kind, staticmethod | classmethod):
        within = (value.__func__,)
    elif issubclass(kind, property):
        within = (value.fget, value.fset)
    elif issubclass(kind, partial):
        within = (value.func, *value.args, *value.keywords.values())
    elif kind is MethodType:
        within = (value.__func__, value.__self__)
    if within:
        return any(_is_foreign(each, seen) for each in within)
    if issubclass(kind, ModuleType):
        return not _is_known(value.__name__)
    if issubclass(kind, type):
        return not _is_known(value.__module__)
    return not _is_known(kind.__module__)


def _cells(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _is_known(name: str | None) -> bool:
    """Whether a Python module is Python's own, or of any installed package: what those hand to each other is theirs."""
    root = (name or "").partition(".")[0]
    return is_library(name) or _is_installed(root)


# Of those that are found: what is not imported yet may be later.
_installed: set[str] = set()


def _is_of(name: str | None, packages: frozenset[str]) -> bool:
    root = (name or "").partition(".")[0]
    return root in packages and (root == "pytest_gradcam" or _is_installed(root))


def _is_installed(root: str) -> bool:
    if root not in _installed:
        module = sys.modules.get(root)
        held = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        places = tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))
        if not any(isinstance(path, str) and path.startswith(places) for path in held):
            return False
        _installed.add(root)
    return True
