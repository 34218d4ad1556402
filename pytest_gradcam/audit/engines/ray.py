"""The ray engine: parts computed by a pool of actors, each with a model of its own, on any number of machines.

Ray Data hands out numbers of parts, restarts actors that die, and gives to others what they had not finished; rows come
back as they are done, in any order, and are kept by whoever asked. https://docs.ray.io/en/latest/data/api
"""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pytest_gradcam.audit.work import Work
from pytest_gradcam.errors import SettingsError, said_by


def compute(
    work: Work,
    numbers: Sequence[int],
    *,
    address: str | None = None,
    actors: int | None = None,
    cpus: float = 1.0,
    gpus: float | None = None,
    **unknown: object,
) -> Iterator[tuple[int, pa.Table, int]]:
    """Parts with their rows, and how many images they have, as they are done.

    Args:
        work: the audit's; its data set's files are read by the actors, so every machine must see them.
        numbers: of the parts that are wanted.
        address: of the cluster; None: the one that ray is connected to or finds, else one on this machine.
        actors: how many; None: as many as the cluster has processors or, where these are used, GPUs for.
        cpus: processors of each actor, and threads that it computes with.
        gpus: GPUs of each actor; None: one, where the cluster has any and the device is not `cpu`.
        unknown: refused.

    Raises:
        SettingsError: ray is not installed, the cluster cannot be reached, or a value is not served.
        Exception: as the local engine raises; or as ray raises, where no machine is left.
    """
    _check(address, actors, cpus, gpus, unknown)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SettingsError('the ray engine needs ray: pip install "pytest-gradcam[ray]"') from error
    if not numbers:
        return
    with _connected(ray, address), _quietly():
        yield from _computed(ray, work, numbers, actors, cpus, gpus)


def _check(address: object, actors: object, cpus: Any, gpus: Any, unknown: dict[str, object]) -> None:
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise SettingsError(f"cluster has {names}: it may have address, actors, cpus and gpus")
    if address is not None and not isinstance(address, str):
        raise SettingsError(f"address is {address!r}: give a text such as '10.0.0.1:6379', or 'auto'")
    if actors is not None and (isinstance(actors, bool) or not isinstance(actors, int) or actors < 1):
        raise SettingsError(f"actors is {actors!r}: give a whole number, 1 or more")
    if not (_is_number(cpus) and cpus > 0):
        raise SettingsError(f"cpus is {cpus!r}: give how many processors each actor has, above 0")
    if gpus is not None and not (_is_number(gpus) and gpus >= 0):
        raise SettingsError(f"gpus is {gpus!r}: give how many GPUs each actor has, 0 or more")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Ray, connected as it was, or for as long as we need it.

    Raises:
        SettingsError: there is no cluster at the address, or ray is connected to another one.
    """
    if ray.is_initialized():
        known = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", known):
            raise SettingsError(
                f"address is {address!r}, and ray is connected to {known!r} already: leave it out, or call "
                "ray.shutdown() before"
            )
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        where = "a ray cluster" if address is None else f"the ray cluster at {address!r}"
        said = " ".join(said_by(error).split())
        raise SettingsError(
            f"{where} cannot be used: {said}. Is it running (`ray status`), and this its address?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _quietly() -> Iterator[None]:
    """Ray Data tells how it plans and when it is done, in lines between ours."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _computed(
    ray: Any, work: Work, numbers: Sequence[int], actors: int | None, cpus: float, gpus: float | None
) -> Iterator[tuple[int, pa.Table, int]]:
    there = ray.cluster_resources()
    if gpus is None:
        gpus = 1.0 if there.get("GPU", 0) >= 1 and str(work.options.device) != "cpu" else 0.0
    _refuse_more_than_a_machine_has(ray, {"CPU": cpus, "GPU": gpus})
    if actors is None:
        actors = max(1, int(there.get("GPU", 0) // gpus if gpus else there.get("CPU", 1) // cpus))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Put once, fetched once by each machine, unpacked once by each actor. It is held here until all is done: an actor
    # that is started again asks for it again.
    held = ray.put(work)
    parts = ray.data.from_items([{"part": number} for number in numbers], override_num_blocks=len(numbers))
    done = parts.map_batches(
        Computer,
        fn_constructor_args=(held, cpus),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(numbers))),
        num_cpus=cpus,
        num_gpus=gpus or None,
    )
    for batch in done.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        for part in batch.to_pylist():
            if part["error"] is not None:
                raise pickle.loads(part["error"])
            yield part["part"], pa.ipc.open_stream(part["rows"]).read_all(), part["images"]
    del held


def _refuse_more_than_a_machine_has(ray: Any, wanted: dict[str, float]) -> None:
    """Ray would wait for such a machine for ever.

    Raises:
        SettingsError: no machine of the cluster has what one actor is to have.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(machine.get(name, 0) >= number for name, number in wanted.items()) for machine in machines):
        shown = " and ".join(f"{number:g} {name}" for name, number in wanted.items() if number)
        had = "; ".join(f"{machine.get('CPU', 0):g} CPU, {machine.get('GPU', 0):g} GPU" for machine in machines[:4])
        raise SettingsError(f"each actor is to have {shown}, and no machine of the cluster has that: there are {had}")


class Computer:
    """An actor: a model, ready on its device, that computes the parts whose numbers it is given.

    What the work raises is given back as a value: ray would log it on every machine, and raise something else.
    """

    def __init__(self, work: Any, cpus: float) -> None:
        """Take the work.

        Args:
            work: reference to a `Work`.
            cpus: how many threads to compute with.
        """
        import ray
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        self._error: bytes | None = None
        try:
            held: Work = ray.get(work)
            self._work = held.placed()
            self._work.begin()
        except Exception as error:  # of ours, or what the user's model raises
            self._error = packed(error)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Compute parts.

        Args:
            batch: their numbers, as `part`.

        Returns:
            their numbers, how many images they have, and their rows as an Arrow stream, or a pickled error.
        """
        numbers = batch["part"].to_pylist()
        found: list[tuple[int, int, bytes | None]] = [(number, 0, None) for number in numbers]
        error = self._error
        if error is None:
            try:
                found = [(number, images, _stream(rows)) for number, rows, images in self._work.computed(numbers)]
            except Exception as raised:  # nothing of one image: those are rows
                error = packed(raised)
        parts, images, rows = zip(*found, strict=True)
        return pa.table(
            {
                "part": pa.array(parts, pa.int64()),
                "images": pa.array(images, pa.int64()),
                "rows": pa.array(rows, pa.large_binary()),
                "error": pa.array([error] * len(found), pa.large_binary()),
            }
        )


def packed(error: Exception) -> bytes:
    """An error as bytes, for another process; one that cannot be sent as what it says."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # an error of the user's own, which may hold anything
        data = pickle.dumps(RuntimeError(said_by(error)))
    return data


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data
