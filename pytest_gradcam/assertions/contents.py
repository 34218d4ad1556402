"""Contents of tensors and arrays as 128-bit hashes, read anew each time: no version counter sees every way to write.

It knows bytes, and neither models nor maps. XXH3 is no cryptographic hash; its seed is drawn for each process, so that
nobody can choose contents that collide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

# What a device gathers into one block at a time: the copy lies beside the model, there and here.
GATHERED = 64 * 2**20

_SEED = int.from_bytes(os.urandom(8), "little")

Bytes = npt.NDArray[np.uint8]


def digest(array: npt.NDArray[np.generic]) -> bytes:
    """Kind, shape and content of an array of numbers, 16 bytes.

    Args:
        array: of any shape, strides and dtype but objects.
    """
    hasher = xxhash.xxh3_128(seed=_SEED)
    _say(hasher, "array", array.shape, array.strides, array.dtype.str)
    hasher.update(_flat(array).data)
    return hasher.digest()


def digest_of_tensors(tensors: Sequence[Tensor]) -> bytes:
    """Kinds, shapes and contents of several tensors, in order, 16 bytes.

    Args:
        tensors: dense ones, on any devices.

    Raises:
        TypeError: one whose values cannot be read as bytes.
    """
    hasher = xxhash.xxh3_128(seed=_SEED)
    elsewhere: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        # One after the other without end marks: each says beforehand how many bytes follow.
        _say(hasher, "tensor", tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.device.type == "cpu":
            hasher.update(_bytes_of(tensor).data)
        else:
            elsewhere.setdefault(tensor.device, []).append(tensor)
    for there in elsewhere.values():
        for block in _gathered(there):
            hasher.update(block.cpu().numpy().data)
    return hasher.digest()


def _say(hasher: xxhash.xxh3_128, *about: object) -> None:
    said = repr(about).encode()
    hasher.update(len(said).to_bytes(4, "little") + said)


def _bytes_of(tensor: Tensor) -> Bytes:
    plain = tensor.detach()
    try:
        return _flat(plain.numpy())
    except (TypeError, RuntimeError):  # bfloat16 and others that numpy does not know; conjugated views
        try:
            if plain.dtype == torch.bfloat16:
                return _flat(plain.view(torch.int16).numpy())
            found: Bytes = _dense(plain).numpy()
            return found
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"a tensor of {tensor.dtype} cannot be read as bytes") from error


def _flat(array: npt.NDArray[np.generic]) -> Bytes:
    """The bytes in the order of memory, so that channels-last weights need no copy."""
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)
    return array.ravel(order="K").view(np.uint8)


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def _gathered(tensors: list[Tensor]) -> Iterator[Tensor]:
    """The bytes of tensors of one device in blocks, so that a few calls read them all, not some for each tensor."""
    block: list[Tensor] = []
    size = 0
    for tensor in tensors:
        plain = _dense(tensor)
        if block and size + plain.numel() > GATHERED:
            yield torch.cat(block)
            block, size = [], 0
        block.append(plain)
        size += plain.numel()
    yield torch.cat(block)
