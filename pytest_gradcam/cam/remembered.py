"""What was found before: target layers by model object.

A finding is for one state of the model, one size of input, one name, one kind of score, and one way to call the model.
The logits of all classes are one kind of score; every callable is one of its own.
"""

from __future__ import annotations

import weakref
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType, NoneType
from typing import Any

from torch import Tensor, nn

from pytest_gradcam.cam.layers import Target
from pytest_gradcam.cam.model import Forward

# Values that cannot change, and names of things that nobody changes.
_PLAIN = (int, float, str, bytes, NoneType, type, ModuleType, BuiltinFunctionType)

# Of one model: lambdas made anew with other values each time would fill the memory.
MAX_KEPT = 64

_found: weakref.WeakKeyDictionary[nn.Module, dict[Any, tuple[Target, ...]]] = weakref.WeakKeyDictionary()


def recall(forward: Forward, inputs: Tensor, asked: str, score: object) -> tuple[Target, ...] | None:
    """What was kept for this model, if it is still in the model; `asked` says which layers were."""
    found = _found.get(forward.module, {}).get(_key(forward, inputs, asked, score), ())
    return found if found and all(_submodule(forward.module, each.name) is each.module for each in found) else None


def keep(forward: Forward, inputs: Tensor, asked: str, score: object, found: tuple[Target, ...]) -> None:
    """Keep a finding as long as the model, the score and the way to call it live."""
    held = {
        key: kept
        for key, kept in _found.get(forward.module, {}).items()
        if key[0] == forward.state and not any(map(_is_gone, key[3:]))
    }
    kept = [*held.items(), (_key(forward, inputs, asked, score), found)]
    _found[forward.module] = dict(kept[-MAX_KEPT:])


def forget(module: nn.Module) -> None:
    """Drop what was found for this model, so that the next call searches again."""
    _found.pop(module, None)


def _key(forward: Forward, inputs: Tensor, asked: str, score: object) -> tuple[Any, ...]:
    score = _reference(score if callable(score) else None)
    return forward.state, asked, tuple(inputs.shape[1:]), score, _reference(forward.how)


def _reference(called: object) -> object:
    if called is None:
        return None
    if isinstance(called, FunctionType) and (inside := _inside(called)) is not None:
        return called.__code__, inside  # the same lambda, made anew in every call
    return object()  # equal to nothing: what it reads may have changed, so it is looked for anew every time


def _inside(function: FunctionType) -> tuple[object, ...] | None:
    """What a function reads besides its argument, where that are plain values only, which say all about it."""
    if any(isinstance(constant, CodeType) for constant in function.__code__.co_consts):
        return None  # functions inside it read what is not to be seen from here
    read: list[object] = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    try:
        read += [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:  # not assigned yet
        return None
    read += [function.__globals__.get(name) for name in function.__code__.co_names]
    return tuple((type(value), value) for value in read) if all(isinstance(value, _PLAIN) for value in read) else None


def _is_gone(reference: object) -> bool:
    return type(reference) is object


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None
