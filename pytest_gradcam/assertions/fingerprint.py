"""What decides what a model or a transform computes, written down so that equal texts mean equal results.

Read anew at each use: tensors by their contents, modules, attributes, hooks, and the code of functions with what they
close over and name. What cannot be read with certainty is no guess but `Unreadable`: then nothing is shared.
"""

from __future__ import annotations

import enum
import logging
import re
import sys
import sysconfig
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cache, cached_property, partial
from pathlib import PurePath
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
from torch.nn.modules import module as torchs_module

from pytest_gradcam.assertions.contents import digest, digest_of_tensors

Fingerprint: TypeAlias = tuple[Any, ...]

# A configuration has hundreds of values, a model tens of thousands: what has more is data.
MAX_READ = 200_000

# What torch keeps in every module: read apart, or set by `explain` itself, or of use to saving and loading only.
_NOT_READ = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")

# Values that cannot change, and names of things that are one in a process.
_IMMUTABLE = (
    *(bool, int, str, bytes, NoneType, type(Ellipsis), type(NotImplemented), range, re.Pattern),
    *(torch.dtype, torch.device, torch.Size, torch.memory_format, torch.layout),
    *(MethodDescriptorType, WrapperDescriptorType, GetSetDescriptorType, MemberDescriptorType, CodeType),
    *(torch._ops.OpOverload, torch._ops.OpOverloadPacket, np.ufunc),
)


class Unreadable(Exception):
    """Something of which nobody can tell whether it is what it was."""


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
    """

    __slots__ = ("_held", "_named_in", "_seen", "said", "tensors")

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.tensors: list[Tensor] = []
        self._seen: dict[int, int] = {}
        self._named_in: set[tuple[str, tuple[str, ...]]] = set()
        self._held: list[object] = []  # what was made on the way must live: another could get its id

    def read(self, value: object) -> None:
        """Write down one value, whatever it is."""
        kind = type(value)
        if kind in _PLAIN:
            self.said.append((kind, value))
            return
        if kind is float:
            self.said.append((kind, repr(value)))  # -0.0 equals 0.0, and NaN not itself
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
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, enum.Enum):
            self.said.append((weakref.ref(kind), value.name, repr(value)))
        elif isinstance(value, np.generic):
            self.said.append((kind, value.tobytes()))
        elif isinstance(value, PurePath):
            self.said.append((kind, str(value)))
        else:
            self._object(value)

    def _module(self, module: nn.Module) -> None:
        kind = type(module)
        if isinstance(module, torch.jit.ScriptModule):
            raise Unreadable("TorchScript keeps what it computes to itself")
        self.read(kind)
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
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        self._values([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items(), *cells])
        if vars(function):
            self._mapping(vars(function))
        if _is_library(function.__module__):
            self._glance(_names(code), function.__globals__)
        else:
            self._named(_names(code), function.__globals__)
            self.said.append(None)

    def _named(self, names: tuple[str, ...], where: Mapping[str, Any]) -> None:
        """What a function of the user's names: all of it counts, and what cannot be read is not passed over."""
        for name in names:
            if name in where:
                value = where[name]
                self.said.append(name)
                if isinstance(value, ModuleType):
                    self._of_python_module(value, names)
                else:
                    self.read(value)

    def _of_python_module(self, module: ModuleType, names: tuple[str, ...]) -> None:
        self.said.append(module.__name__)
        key = (module.__name__, names)
        if key in self._named_in:
            return
        self._named_in.add(key)
        (self._glance if _is_library(module.__name__) else self._named)(names, vars(module))

    def _glance(self, names: tuple[str, ...], where: Mapping[str, Any]) -> None:
        """What a function of an installed package names: its functions, numbers and texts, which somebody may patch."""
        for name in names:
            value = where.get(name, _GLANCED)
            kind = type(value)
            if kind is FunctionType:
                self.said.append((name, value.__code__))
            elif kind in _PLAIN or kind is BuiltinFunctionType:
                self.said.append((name, value))
            elif kind is float:
                self.said.append((name, repr(value)))
            elif kind is ModuleType:
                self._of_python_module(value, names)

    def _class(self, cls: type) -> None:
        self.said.append(weakref.ref(cls))
        for each in cls.__mro__[:-1]:
            if id(each) in self._seen and each is not cls:
                continue
            self._seen.setdefault(id(each), len(self._seen))
            of_library = _is_library(each.__module__)
            if of_library and not issubclass(each, nn.Module):
                continue
            self.said.append(len(vars(each)))
            for name, value in list(vars(each).items()):
                if name in _NO_BEHAVIOUR:
                    continue
                if of_library:
                    self._glance_at_attribute(name, value)
                else:
                    self.said.append(name)
                    self.read(value)

    def _glance_at_attribute(self, name: str, value: object) -> None:
        within = getattr(value, "__func__", getattr(value, "fget", None))  # of static and class methods and properties
        function = value if isinstance(value, FunctionType) else within
        if isinstance(function, FunctionType):
            if _is_library(function.__module__):
                self.said.append(function.__code__)
                if function.__module__ != nn.Module.__module__:
                    self._glance(_names(function.__code__), function.__globals__)
            else:
                self.said.append(name)
                self.read(function)  # somebody has put it there
        elif type(value) in _PLAIN or type(value) is float:
            self.said.append((name, repr(value)))

    def _object(self, value: object) -> None:
        kind: type[Any] = type(value)
        if isinstance(value, torch.Generator | Tensor) or not _shows_all(kind, value):
            raise Unreadable(f"what a {kind.__module__}.{kind.__qualname__} holds cannot be seen")
        self.read(kind)
        if isinstance(value, dict):
            self._mapping(value)
        elif isinstance(value, list | tuple):
            self._values(value)
        if attributes := getattr(value, "__dict__", None):
            self._mapping(attributes)
        for name in _slots(kind):  # type: ignore[arg-type]  # mypy does not know that classes hash
            if hasattr(value, name):
                self.said.append(name)
                self.read(getattr(value, name))

    def _builtin(self, function: BuiltinFunctionType) -> None:
        owner = function.__self__
        self.said.append((function.__module__, function.__qualname__))
        if owner is not None and not isinstance(owner, ModuleType | type):
            self.read(owner)


_NO_BEHAVIOUR = frozenset(
    {
        *(
            "__init__",
            "__dict__",
            "__weakref__",
            "__doc__",
            "__annotations__",
            "__module__",
            "__qualname__",
            "__slots__",
        ),
        *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__match_args__", "__repr__"),
        *("__dataclass_fields__", "__dataclass_params__", "__annotate__", "__firstlineno__", "__static_attributes__"),
        *("__classcell__", "__jit_unused_properties__"),
    }
)
_PLAIN = frozenset(_IMMUTABLE)
_GLANCED = object()
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
    ModuleType: lambda reader, module: reader.said.append(module.__name__),
    logging.Logger: lambda reader, logger: reader.said.append(logger.name),  # it takes, and gives nothing back
}


@cache
def _names(code: CodeType) -> tuple[str, ...]:
    """The names that a function uses, those of the functions in it too."""
    inside = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return tuple(dict.fromkeys([*code.co_names, *inside]))


@cache
def _slots(kind: Hashable) -> tuple[str, ...]:
    found = [vars(each).get("__slots__", ()) for each in kind.__mro__]  # type: ignore[attr-defined]  # a class, of which mypy does not know that it hashes
    names = [name for slots in found for name in ((slots,) if isinstance(slots, str) else slots)]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


_transparent: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _shows_all(kind: type, value: object) -> bool:
    """Whether attributes and slots are all that an object has, and C holds nothing besides.

    Python itself knows: it refuses to pickle an object of another size than its attributes account for.
    """
    known = _transparent.get(kind)
    if known is None:
        own = ("__reduce_ex__", "__reduce__", "__getstate__")
        known = all(getattr(kind, name, None) is getattr(object, name, None) for name in own)
        try:
            if known:
                object.__reduce_ex__(value, 2)
        except Exception:  # a TypeError mostly; what somebody's slots raise is as good
            known = False
        _transparent[kind] = known
    return known


@cache
def _is_library(name: str | None) -> bool:
    """Whether a Python module is installed or Python's own, and not the user's."""
    root = (name or "").partition(".")[0]
    if root in ("pytest_gradcam", "builtins") or root in sys.stdlib_module_names - {"__main__"}:
        return True
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    return bool(file) and file.startswith(tuple(sysconfig.get_paths()[key] for key in ("purelib", "platlib")))


def surroundings() -> Fingerprint:
    """What is set for the whole process or thread and changes what models compute.

    Raises:
        Unreadable: something is hooked into every module or every operation.
    """
    if torchs_module._has_any_global_hook():  # type: ignore[no-untyped-call]  # torch's own lack
        raise Unreadable("global module hooks")
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        raise Unreadable("a mode that changes torch's functions")
    cuda, cudnn, matmul = torch.backends.cuda, torch.backends.cudnn, torch.backends.cuda.matmul
    attention: tuple[Callable[[], bool], ...] = (
        cuda.flash_sdp_enabled,
        cuda.mem_efficient_sdp_enabled,
        cuda.math_sdp_enabled,
    )
    autocast = tuple((torch.is_autocast_enabled(place), torch.get_autocast_dtype(place)) for place in ("cpu", "cuda"))
    return (
        autocast,
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),  # sums are split by it, and rounded otherwise
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.enabled,
        torch.backends.mha.get_fastpath_enabled(),
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        (matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction),
        tuple(enabled() for enabled in attention),
    )
