"""The baselines of a test that is not pytest's, in a folder of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_gradcam import Gradcam, Settings
from pytest_gradcam.baselines.shelf import Shelf


@dataclass
class Project:
    """A folder with a test's baselines.

    Attributes:
        root: the folder.
        events: what happened to baselines.
    """

    root: Path
    events: list[dict[str, Any]] = field(default_factory=list)

    def gradcam(self, update: str | None = None, *, previews: bool = False, **settings: Any) -> Gradcam:
        """The fixture of one run of the test."""
        shelf = Shelf(
            beside=self.root,
            module="test_it.py",
            test="test_reads",
            id="test_it.py::test_reads",
            root=self.root,
            received=self.root / "gradcam-report" / "received",
            update=update,
            previews=previews,
            shown=lambda path: path.relative_to(self.root).as_posix(),
            tell=self.events.append,
        )
        return Gradcam(Settings(**settings), shelf=shelf)

    @property
    def happened(self) -> list[str]:
        return [event["happened"] for event in self.events]

    def baseline(self, name: str = "") -> Path:
        return self.root / "__gradcam__" / "test_it" / f"test_reads{'@' + name if name else ''}.safetensors"
