"""Contents of tensors and arrays as short digests, read anew each time: no version counter sees every way to write.

It knows bytes, and neither models nor maps.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# A block is 127 rows of 509 words of 8 bytes. Both are odd and prime: no stride of a tensor falls in with them, and the
# top bits of all words, flipped, do not sum to nothing. It fits into a core's cache, where the second sum finds it.
ROWS, COLUMNS = 127, 509
# What is shorter is hashed whole, in less time than the sums would take to be called.
LEAST = 16 * 1024
# From here on a second thread is worth its start, which takes 0.1 ms.
LEAST_FOR_THREADS = 8 * 2**20
# More of them wait for the memory, not for each other.
MOST_THREADS = 4
# What a device gathers into one block at a time: the copy lies beside the model.
GATHERED = 256 * 2**20

Bytes = npt.NDArray[np.uint8]


def digest(array: npt.NDArray[np.generic]) -> bytes:
    """Kind, shape and content of an array of numbers, 20 bytes.

    Args:
        array: of any shape, strides and dtype but objects.
    """
    about = repr((array.shape, array.strides, array.dtype.str)).encode()
    return hashlib.sha1(about + _sums(_flat(array)), usedforsecurity=False).digest()


def digest_of_tensors(tensors: Sequence[Tensor]) -> bytes:
    """The contents of several tensors, in order, 20 bytes; their shapes and types are not in it.

    Args:
        tensors: dense ones, on any devices.

    Raises:
        TypeError: one whose values cannot be read as bytes.
    """
    here: list[Bytes] = []
    elsewhere: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.device.type == "cpu":
            here.append(_bytes_of(tensor))
        else:
            elsewhere.setdefault(tensor.device, []).append(tensor)
    found = _digests(here)
    for there in elsewhere.values():
        found += [_sums_there(block) for block in _gathered(there)]
    return hashlib.sha1(b"".join(found), usedforsecurity=False).digest()


def _bytes_of(tensor: Tensor) -> Bytes:
    plain = tensor.detach()
    try:
        return _flat(plain.numpy())
    except (TypeError, RuntimeError):  # bfloat16 and others that numpy does not know; conjugated views
        try:
            dense = plain.resolve_conj().resolve_neg().contiguous().reshape(-1)
            return dense.view(torch.uint8).numpy()
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"a tensor of {tensor.dtype} cannot be read as bytes") from error


def _flat(array: npt.NDArray[np.generic]) -> Bytes:
    """The bytes in the order of memory, so that channels-last weights need no copy."""
    if array.flags.c_contiguous:
        return array.reshape(-1).view(np.uint8)
    return array.ravel(order="K").view(np.uint8)


def _digests(arrays: list[Bytes]) -> list[bytes]:
    """One digest for each array, read by several threads where there is much to read."""
    found: list[bytes] = [b""] * len(arrays)
    total = sum(each.nbytes for each in arrays)
    threads = min(torch.get_num_threads(), MOST_THREADS) if total >= LEAST_FOR_THREADS else 1
    # The largest first, each to whoever has least. Threads are made anew each time: kept ones do not survive a fork.
    shares: list[list[int]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for i in sorted(range(len(arrays)), key=lambda i: arrays[i].nbytes, reverse=True):
        least = loads.index(min(loads))
        shares[least].append(i)
        loads[least] += arrays[i].nbytes

    def read(share: list[int]) -> None:
        for i in share:
            found[i] = _sums(arrays[i])

    others = [threading.Thread(target=read, args=(share,), daemon=True) for share in shares[1:]]
    for other in others:
        other.start()
    read(shares[0])
    for other in others:
        other.join()
    if not all(found):  # what a thread raises ends nobody but itself
        raise TypeError("some tensors could not be read as bytes")
    return found


def _sums(array: Bytes) -> bytes:
    """A digest of bytes: whole where they are few, else of the sums of the rows and the columns of each block.

    The sums are exact, modulo 2^64: a change in one place changes one of each, whatever its size. A block that was
    reordered keeps its sums only if every row and every column of it does; both have lengths that no layout has.
    """
    length = array.nbytes
    if length < LEAST:
        return hashlib.sha1(array.data, usedforsecurity=False).digest()
    words = array[: length // 8 * 8].view(np.uint64)
    sums = np.empty(len(words) // COLUMNS + (len(words) // (COLUMNS * ROWS) + 1) * COLUMNS, np.uint64)
    start = end = 0
    while (rows := min(ROWS, (len(words) - start) // COLUMNS)) > 0:
        block = words[start : start + rows * COLUMNS].reshape(rows, COLUMNS)
        np.add.reduce(block, axis=0, out=sums[end : end + COLUMNS])
        np.add.reduce(block, axis=1, out=sums[end + COLUMNS : end + COLUMNS + rows])
        start, end = start + rows * COLUMNS, end + COLUMNS + rows
    said = hashlib.sha1(length.to_bytes(8, "little"), usedforsecurity=False)
    said.update(sums[:end].data)
    said.update(array[start * 8 :].data)
    return said.digest()


def _gathered(tensors: list[Tensor]) -> Iterator[Tensor]:
    """The bytes of tensors of one device in blocks, so that a few calls read them all, not some for each tensor."""
    block: list[Tensor] = []
    size = 0
    for tensor in tensors:
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
        if block and size + plain.numel() > GATHERED:
            yield torch.cat(block)
            block, size = [], 0
        block.append(plain)
        size += plain.numel()
    yield torch.cat(block)


def _sums_there(block: Tensor) -> bytes:
    """The sums of `_sums`, made where the bytes are; what makes no whole block is brought here."""
    size = ROWS * COLUMNS * 8
    whole = block.numel() // size * size
    said = hashlib.sha1(block.numel().to_bytes(8, "little"), usedforsecurity=False)
    if whole:
        words = block[:whole].view(torch.int64).reshape(-1, ROWS, COLUMNS)
        said.update(words.sum(dim=1).cpu().numpy().data)
        said.update(words.sum(dim=2).cpu().numpy().data)
    said.update(_sums(block[whole:].cpu().numpy()))
    return said.digest()
