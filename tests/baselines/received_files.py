"""A project with baselines and received files, made by hand: no model, no run of pytest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.format import Received, digest_of, dumps
from pytest_gradcam.baselines.names import FOLDER, CheckName
from pytest_gradcam.report.overlay import save_preview
from pytest_gradcam.verdicts import Sight
from tests.report.synthetic import explanation

Floats = npt.NDArray[np.float32]


def spot(row: float, column: float, side: int = 7, width: float = 1.2) -> Floats:
    """A raw CAM with a hill at a place, float32 (side, side)."""
    y, x = np.mgrid[:side, :side]
    return np.asarray(np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2)), dtype=np.float32)


def baseline(check: CheckName, raw: Floats | None = None, **changes: Any) -> Baseline:
    """A baseline with that map; hill in the top left corner where none is given."""
    raw = spot(1, 1) if raw is None else raw
    made = Baseline(
        check=check,
        raw=raw,
        cam=np.maximum(raw, np.float32(0)) / raw.max(),
        glance=np.full((3, 4, 4), 0.5, np.float32),
        method="grad-cam",
        layer="layer4",
        layers=("layer4",),
        view="NCHW 7×7",
        cls=3,
        label="rocket",
        score=7.25,
        probability=0.9,
        predicted=3,
        size=(224, 224),
        image="picture:" + "0" * 32,
        transform="Compose:" + "1" * 32,
        engine="hooks",
        device="cpu",
        versions={"torch": "2.9.0"},
    )
    return replace(made, **changes)


@dataclass(frozen=True)
class Project:
    """A rootdir with a test file, its baselines, and a report."""

    root: Path

    @property
    def report(self) -> Path:
        return self.root / "gradcam-report"

    @property
    def received(self) -> Path:
        return self.report / "received"

    def target(self, check: CheckName, folder: str = "tests") -> Path:
        return self.root / folder / FOLDER / check.file

    def keep(self, check: CheckName, raw: Floats | None = None, folder: str = "tests", **changes: Any) -> Baseline:
        """Store a baseline."""
        made = baseline(check, raw, **changes)
        store.write(self.target(check, folder), made)
        return made

    def receive(
        self,
        check: CheckName,
        raw: Floats | None = None,
        *,
        folder: str = "tests",
        preview: bool = True,
        place: str | None = None,
        says: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        """Leave a map as a failed run does; `place` and `says` make it lie otherwise, or tell lies."""
        made = baseline(check, spot(5, 5) if raw is None else raw, **changes)
        before = store.read_bytes(self.target(check, folder))
        target = f"{folder}/{FOLDER}/{check.file}"
        test = check.test.replace(".", "::", check.test.partition("[")[0].count("."))
        received = Received(
            target=target,
            id=f"{folder}/{check.module}::{test}" + (f"@{check.name}" if check.name else ""),
            replaces="" if before is None else digest_of(before),
            preview=preview,
        )
        received = replace(received, **(says or {}))
        path = self.received / (place if place is not None else target)
        store.write(path, made, received)
        save_preview(Sight(explanation(raw=made.raw, grid=made.raw.shape)), path.with_suffix(".png"))
        return path


def project(root: Path, *modules: str) -> Project:
    """A rootdir with these test files in `tests`."""
    (root / "tests").mkdir(parents=True, exist_ok=True)
    for name in modules or ("test_cats.py",):
        (root / "tests" / name).touch()
    return Project(root)


def snapshot(folder: Path) -> dict[str, str]:
    """All that lies in a folder: digests of files, targets of links."""
    found = {}
    todo = [folder]
    while todo:
        try:
            paths = list(todo.pop().iterdir())
        except OSError:  # nested too deep
            continue
        for path in paths:
            if os.path.islink(path):
                text = f"link {os.readlink(path)}"
            elif os.path.isfile(path):
                text = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                text = "folder" if os.path.isdir(path) else "other"
                todo.append(path)
            found[str(path)] = text
    return found


def bytes_of(made: Baseline) -> bytes:
    return dumps(made)
