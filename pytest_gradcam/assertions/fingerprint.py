"""What decides what a model or a transform computes, written down so that equal texts mean equal results.

Read anew at each use: tensors by their contents, modules, attributes, hooks, the code of a user's functions with what
they close over and name, and the namespaces of libraries. What cannot be read with certainty is no guess but
`Unreadable`: then nothing is shared.
"""

from __future__ import annotations

import enum
import logging
import re
import sys
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from pytest_gradcam.assertions.contents import digest, digest_of_tensors
from pytest_gradcam.assertions.kinds import HEAP, shows_all, slots_of, static_bases
from pytest_gradcam.assertions.libraries import (
    Unreadable,
    is_library,
    is_pure,
    is_pythons,
    watch,
    watch_class,
    watch_function,
)
from pytest_gradcam.assertions.user_code import REFUSED_BUILTINS, named_in

Fingerprint: TypeAlias = tuple[Any, ...]

# A configuration has hundreds of values, a model tens of thousands: what has more is data.
MAX_READ = 200_000

# What torch keeps in every module: read apart, or set by `explain` itself, or of use to saving and loading only.
_NOT_READ = frozenset(vars(nn.Module()))
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks"),
)

# Values that cannot change, and names of things that are one in a process.
_IMMUTABLE = (
    *(bool, int, str, bytes, NoneType, type(Ellipsis), type(NotImplemented), range, re.Pattern),
    *(torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout),
    *(MethodDescriptorType, WrapperDescriptorType, GetSetDescriptorType, MemberDescriptorType, CodeType),
)
# Libraries' own operators; the implementation of anybody else's may be exchanged under its name.
_OPERATORS = ("aten.", "aten::", "prims.", "prims::", "torchvision.", "torchvision::")


def fingerprint(*values: object) -> Fingerprint:
    """What decides what these compute; equal for two readings only if nothing of it has changed in between.

    Args:
        values: models, transforms, options, tensors, plain values.

    Raises:
        Unreadable: there is something of which nobody can tell.
    """
    reader = _Reader()
    try:
        for value in values:
            reader.read(value)
        reader.said.append(digest_of_tensors(reader.tensors))
        reader.said += reader.watched.values()
        found = tuple(reader.said)
        hash(found)
    except Unreadable:
        raise
    except Exception as error:  # a cell that is empty, a `repr` of somebody's that raises: no reason to fail a test
        raise Unreadable(str(error)) from error
    return found


class _Reader:
    """One reading.

    Attributes:
        said: what was read, in order.
        tensors: those whose contents are to be read at the end, together.
        watched: what stands for the namespaces of libraries.
    """

    __slots__ = ("_constructed", "_held", "_named_in", "_seen", "said", "tensors", "watched")

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.tensors: list[Tensor] = []
        self.watched: dict[int, object] = {}
        self._constructed: set[type] = set()
        self._seen: dict[int, int] = {}
        self._named_in: set[tuple[int, tuple[str, ...]]] = set()
        self._held: list[object] = []  # what was made on the way must live: another could get its id

    def read(self, value: object) -> None:
        """Write down one value, whatever it is."""
        kind = type(value)
        if kind in _PLAIN:
            self.said.append((kind, value))
            return
        if kind is float or kind is complex:
            self.said.append((kind, repr(value)))  # -0.0 equals 0.0, and NaN not itself
            return
        if isinstance(value, type):  # apart: whoever names a class may make objects of it
            self._class(value)
            self._constructor(value)
            return
        if id(value) in self._seen:
            self.said.append(("seen", self._seen[id(value)]))
            return
        if len(self._seen) > MAX_READ:
            raise Unreadable("there is too much to read")
        self._seen[id(value)] = len(self._seen)
        self._held.append(value)
        way = _WAYS.get(kind)
        if way is not None:
            way(self, value)
        elif isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, enum.Enum):
            self._class(kind)
            self.said.append(value.name)
            self._mapping(vars(value))
        elif isinstance(value, np.generic) and kind.__module__ == "numpy":
            self.said.append((kind, value.tobytes()))
        else:
            self._object(value)

    def _module(self, module: nn.Module) -> None:
        kind = type(module)
        if isinstance(module, torch.jit.ScriptModule):
            raise Unreadable("TorchScript keeps what it computes to itself")
        if bases := static_bases(kind):
            raise Unreadable(f"a module that is a {bases[0].__name__} too")
        self._class(kind)
        held = vars(module)
        self.said.append(len(held))  # so that what moves from one module to the next does not read the same
        for name in _HOOKS:
            if held[name]:
                self.said.append(name)
                self._mapping(held[name])
        for table in (held["_parameters"], held["_buffers"], held["_modules"]):
            self.said.append(len(table))
            for name, value in table.items():
                self.said.append(name)
                self.read(value)
        for name, value in held.items():
            if name not in _NOT_READ:
                self.said.append(name)
                self.read(value)
        self._slots(module)

    def _slots(self, value: object) -> None:
        for slot in slots_of(type(value)):
            try:
                held = slot.__get__(value)
            except AttributeError:  # empty
                continue
            self.said.append(slot.__name__)
            self.read(held)

    def _tensor(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise Unreadable(f"a tensor of layout {tensor.layout} on {tensor.device}")
        self.said.append(
            (type(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.requires_grad)
        )
        self.tensors.append(tensor)
        if vars(tensor):  # what somebody hung on it
            self._mapping(vars(tensor))

    def _array(self, array: np.ndarray[Any, Any]) -> None:
        if array.dtype.hasobject:
            raise Unreadable("an array of objects")
        self.said.append(digest(array))

    def _mapping(self, mapping: Mapping[Any, Any]) -> None:
        self.said.append((type(mapping), len(mapping)))
        if isinstance(mapping, defaultdict):
            self.read(mapping.default_factory)
        for key, value in mapping.items():
            self.read(key)
            self.read(value)

    def _values(self, values: Iterable[object]) -> None:
        found = list(values)
        self.said.append((type(values) if isinstance(values, list | tuple | deque) else None, len(found)))
        for value in found:
            self.read(value)

    def _set(self, values: Iterable[object]) -> None:
        found = frozenset((type(value), value) for value in values)
        if not all(kind in _PLAIN for kind, _ in found):
            raise Unreadable("a set of objects, whose order nobody knows")
        self.said.append(found)

    def _function(self, function: FunctionType) -> None:
        code = function.__code__
        self.said.append(code)
        self._values([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()])
        if vars(function):
            self._mapping(vars(function))
        cells = dict(zip(code.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True))
        module = function.__globals__.get("__name__")
        if is_library(module):
            if not is_pure(module):
                raise Unreadable(f"what {module}.{function.__qualname__} gives is not decided by what it is given")
            self._values(cells.values())
            self._watch(watch_function(function))
            return
        named = named_in(code)
        if named.refused is not None:
            raise Unreadable(f"{function.__qualname__}: {named.refused}")
        if (cls := cells.pop("__class__", None)) is not None:  # for `super()`
            self._class(cls)
        self._named(named.outside, cells, named.names, named.handed_on)
        self._named(named.outside, function.__globals__, named.names, named.handed_on)
        self.said.append(None)

    def _watch(self, spaces: Iterable[object]) -> None:
        for space in spaces:
            self.watched[id(space)] = space

    def _named(
        self, names: Iterable[str], where: Mapping[str, Any], used: tuple[str, ...], handed_on: frozenset[str]
    ) -> None:
        """What a function of the user's names: all of it counts, and what cannot be read is not passed over.

        Args:
            names: what is looked for.
            where: in what.
            used: all names of the function, which may be attributes of a module.
            handed_on: of the names, those that the function hands on: a module that is may be asked for anything.
        """
        for name in names:
            if name in where:
                value = where[name]
                self.said.append(name)
                if not isinstance(value, ModuleType):
                    self.read(value)
                elif name in handed_on:
                    raise Unreadable(f"the module {name} is handed on")
                else:
                    self._of_python_module(value, used, handed_on)

    def _of_python_module(self, module: ModuleType, used: tuple[str, ...], handed_on: frozenset[str]) -> None:
        name = module.__name__
        self.said.append(name)
        key = (id(module), used)
        if key in self._named_in:
            return
        self._named_in.add(key)
        if not is_pure(name):
            raise Unreadable(f"what {name} gives is not decided by what it is given")
        if not is_library(name):
            if type(module) is not ModuleType or "__getattr__" in vars(module):
                raise Unreadable(f"{name} makes up its attributes")
            self._named(
                used, vars(module), used, frozenset(used)
            )  # whether a module within it is handed on is not seen
            return
        if not is_pythons(name):
            self._watch([watch(vars(module), vars(module))])
        for each in used:
            found = vars(module).get(each)
            if isinstance(found, ModuleType):
                self._of_python_module(found, used, handed_on)

    def _class(self, cls: type) -> None:
        if type(cls) is not type:
            self._class(type(cls))
        self.said.append(weakref.ref(cls))
        for each in cls.__mro__[:-1]:
            if id(each) in self._seen:
                continue
            self._seen[id(each)] = len(self._seen)
            if is_library(each.__module__):
                if each.__flags__ & HEAP:  # the others, of C, cannot be patched
                    self._watch(watch_class(each))
                continue
            self.said.append(len(vars(each)))
            for name, value in list(vars(each).items()):
                if name not in _NO_BEHAVIOUR:
                    self.said.append(name)
                    self.read(value)

    def _constructor(self, cls: type) -> None:
        """What makes objects of a class; of the model's own class it does not count, since the model is made."""
        if not is_pure(cls.__module__):
            raise Unreadable(f"what a {cls.__module__}.{cls.__qualname__} gives is not decided by what it is given")
        if cls in self._constructed:
            return
        self._constructed.add(cls)
        for each in cls.__mro__[:-1]:
            if not is_library(each.__module__) and "__init__" in vars(each):
                self.read(vars(each)["__init__"])

    def _object(self, value: object) -> None:
        kind: type[Any] = type(value)
        base = next((each for each in static_bases(kind) if each not in (dict, list, tuple)), None)
        if base is not None or isinstance(value, ModuleType | torch.Generator | Tensor) or not shows_all(kind, value):
            raise Unreadable(f"what a {kind.__module__}.{kind.__qualname__} holds cannot be seen")
        self._class(kind)
        if isinstance(value, dict):
            self._mapping(value)
        elif isinstance(value, list | tuple):
            self._values(value)
        if attributes := getattr(value, "__dict__", None):
            self._mapping(attributes)
        self._slots(value)

    def _builtin(self, function: BuiltinFunctionType) -> None:
        owner, name = function.__self__, function.__name__
        module = owner.__module__ if isinstance(owner, type) else getattr(owner, "__name__", function.__module__)
        if owner is None or isinstance(owner, ModuleType | type):
            if not (is_library(module) and is_pure(module)) or (module == "builtins" and name in REFUSED_BUILTINS):
                raise Unreadable(f"what {module}.{name} gives is not decided by what it is given")
        else:
            self.read(owner)
        self.said.append((function.__module__, function.__qualname__))

    def _ufunc(self, function: np.ufunc) -> None:
        places = (np, sys.modules.get("scipy.special"))
        if not any(getattr(place, function.__name__, None) is function for place in places):
            raise Unreadable("a function that numpy does not have")
        self.said.append(function)

    def _operator(self, operator: object) -> None:
        if not str(operator).startswith(_OPERATORS):
            raise Unreadable(f"the operator {operator}, which somebody has registered")
        self.said.append(operator)

    def _logger(self, logger: logging.Logger) -> None:
        """It takes, and gives nothing back but whether it would."""
        manager = logger.manager
        self.said.append((logger.name, logger.getEffectiveLevel(), logger.disabled, manager.disable))
        self._mapping({name: value for name, value in vars(logger).items() if name not in _OF_LOGGERS})

    def _unreadable_module(self, module: ModuleType) -> None:
        raise Unreadable(f"the module {module.__name__} is held as a value: any of it may be read")


_OF_LOGGERS = frozenset(vars(logging.Logger("")))
_NO_BEHAVIOUR = frozenset(
    {
        *(
            "__init__",
            "__dict__",
            "__weakref__",
            "__annotations__",
            "__module__",
            "__qualname__",
            "__slots__",
        ),
        *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__match_args__", "__repr__"),
        *("__dataclass_fields__", "__dataclass_params__", "__annotate__", "__firstlineno__", "__static_attributes__"),
        *("__classcell__", "__jit_unused_properties__", "_member_map_", "_value2member_map_"),
    }
)
_PLAIN = frozenset(_IMMUTABLE)
_WAYS: dict[type, Callable[[_Reader, Any], None]] = {
    **dict.fromkeys((Tensor, nn.Parameter, nn.Buffer if hasattr(nn, "Buffer") else Tensor), _Reader._tensor),
    np.ndarray: _Reader._array,
    **dict.fromkeys((dict, OrderedDict, defaultdict, MappingProxyType), _Reader._mapping),
    **dict.fromkeys((list, tuple, deque), _Reader._values),
    **dict.fromkeys((set, frozenset), _Reader._set),
    FunctionType: _Reader._function,
    BuiltinFunctionType: _Reader._builtin,
    MethodType: lambda reader, method: reader._values((method.__func__, method.__self__)),
    partial: lambda reader, call: reader._values((call.func, call.args, call.keywords, vars(call))),
    property: lambda reader, found: reader._values((found.fget, found.fset)),
    cached_property: lambda reader, found: reader.read(found.func),
    staticmethod: lambda reader, found: reader.read(found.__func__),
    classmethod: lambda reader, found: reader.read(found.__func__),
    slice: lambda reader, found: reader._values((found.start, found.stop, found.step)),
    SimpleNamespace: lambda reader, found: reader._mapping(vars(found)),
    **dict.fromkeys(
        (PosixPath, PurePosixPath, PureWindowsPath, WindowsPath),
        lambda reader, path: reader.said.append((type(path), str(path))),
    ),
    ModuleType: _Reader._unreadable_module,
    **dict.fromkeys((logging.Logger, logging.RootLogger), _Reader._logger),
    np.ufunc: _Reader._ufunc,
    **dict.fromkeys((torch._ops.OpOverload, torch._ops.OpOverloadPacket), _Reader._operator),
}
