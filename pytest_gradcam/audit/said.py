"""What an audit depends on, said in texts that are the same in every process: so that rows are not taken for another's.

Of the user's own code, that of functions and of methods of modules is read, with the plain values that they close over.
What they name besides, in other modules or files, is not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn

_PLAIN: Final = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST: Final = 6
# What torch keeps in every module; its tensors, children and hooks are read by themselves.
_TORCHS: Final = frozenset(vars(nn.Module()))


def digest_of(model: object) -> str:
    """What tells one model from another: its modules, their weights, buffers, plain attributes and code."""
    digest = hashlib.sha256()
    for part in model if isinstance(model, tuple) else [model]:
        if isinstance(part, nn.Module):
            for piece in _of_module(part):
                digest.update(piece)
        else:
            digest.update(said(part).encode("utf-8", "replace"))
    return digest.hexdigest()


def said(value: object, depth: int = 0) -> str:
    """A function, layer or other setting, as a text: its name, and a digest of its code and what it closes over."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth > _DEEPEST:
        return type(value).__qualname__
    if isinstance(value, list | tuple | set | frozenset):
        inner = [said(each, depth + 1) for each in value]
        return f"{type(value).__name__}({', '.join(sorted(inner) if isinstance(value, set | frozenset) else inner)})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{said(k, depth + 1)}: {said(v, depth + 1)}' for k, v in value.items())})"
    if isinstance(value, MethodType):
        return f"{said(value.__func__, depth + 1)} of {said(value.__self__, depth + 1)}"
    if isinstance(value, FunctionType):
        held = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *_closed_over(value)]
        text = f"{_code(value.__code__)} {[said(each, depth + 1) for each in held]}"
        return f"{value.__qualname__} {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:16]}"
    if isinstance(value, nn.Module):
        return f"{type(value).__qualname__} {digest_of(value)[:16]}"
    if isinstance(value, Tensor):
        return f"tensor {hashlib.sha256(_bytes(value)).hexdigest()[:16]}"
    attributes = getattr(value, "__dict__", None)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(attributes, dict) and not isinstance(value, type):
        own = type(value).__dict__.get("__call__")
        called = f" {said(own, depth + 1)}" if isinstance(own, FunctionType) else ""
        return f"{kind}{called} {said(attributes, depth + 1)}"
    return kind if not isinstance(value, type) else value.__qualname__


def _of_module(model: nn.Module) -> Iterator[bytes]:
    for name, module in model.named_modules():
        kind = type(module)
        yield f"{name} {kind.__module__}.{kind.__qualname__} {module.extra_repr()}".encode("utf-8", "replace")
        if not kind.__module__.startswith("torch."):
            for own, function in sorted(vars(kind).items()):
                if isinstance(function, FunctionType):
                    yield f"{own} {said(function)}".encode("utf-8", "replace")
        for own, value in sorted(vars(module).items()):
            if own not in _TORCHS and not isinstance(value, nn.Module):
                yield f"{own} {said(value)}".encode("utf-8", "replace")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:  # buffers that are not saved, too
        yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
        yield _bytes(tensor)


def _bytes(tensor: Tensor) -> bytes:
    held = tensor.detach().cpu().contiguous()
    return held.reshape(-1).view(torch.uint8).numpy().tobytes()


def _code(code: CodeType) -> str:
    constants = [_code(each) if isinstance(each, CodeType) else said(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {constants}"


def _closed_over(function: FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    return found
