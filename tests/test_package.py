"""The package as a house: lazy names, registries that agree, and who may import whom."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_gradcam
from pytest_gradcam import settings
from pytest_gradcam.cam.methods import METHODS
from pytest_gradcam.cam.running import ENGINES
from pytest_gradcam.metrics import METRICS

ROOT = Path(pytest_gradcam.__file__).parent


def in_a_fresh_interpreter(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT.parent)
    return found.stdout.strip()


class TestNames:
    @pytest.mark.parametrize("name", pytest_gradcam.__all__)
    def test_resolve_to_where_they_are_defined(self, name: str) -> None:
        found = getattr(pytest_gradcam, name)
        home = importlib.import_module(f"pytest_gradcam.{pytest_gradcam._HOME[name]}")
        assert getattr(home, name) is found
        assert found.__doc__
        assert pickle.loads(pickle.dumps(found)) is found

    def test_are_all_homed_and_typed(self) -> None:
        """What `__getattr__` serves, what `import *` takes and what a type checker sees are the same names."""
        tree = ast.parse((ROOT / "__init__.py").read_text())
        blocks = [node for node in tree.body if isinstance(node, ast.If)]
        typed = {alias.name for block in blocks for node in block.body for alias in imported_aliases(node)}
        assert set(pytest_gradcam.__all__) == set(pytest_gradcam._HOME) == typed
        assert pytest_gradcam.__all__ == sorted(pytest_gradcam.__all__)

    def test_are_listed(self) -> None:
        assert {*pytest_gradcam.__all__, "__version__"} <= set(dir(pytest_gradcam))

    def test_that_are_none_are_refused(self) -> None:
        with pytest.raises(AttributeError, match=r"^module 'pytest_gradcam' has no attribute 'explane'$"):
            pytest_gradcam.explane  # noqa: B018

    def test_cost_nothing_until_they_are_used(self) -> None:
        heavy = "{'torch', 'numpy', 'PIL', 'cv2', 'scipy', 'timm', 'pytest'}"
        assert in_a_fresh_interpreter(f"import sys, pytest_gradcam; print({heavy} & set(sys.modules))") == "set()"

    def test_of_settings_and_errors_cost_no_torch(self) -> None:
        code = (
            "import sys, pytest_gradcam as p; p.Settings(metric='energy'); p.AttentionError; p.Verdict; "
            "print({'torch', 'numpy', 'pytest'} & set(sys.modules))"
        )
        assert in_a_fresh_interpreter(code) == "set()"

    def test_come_with_types(self) -> None:
        assert (ROOT / "py.typed").exists()


class TestRegistries:
    """Settings are checked before anything heavy is loaded, and so hold the names once more."""

    def test_agree_with_the_settings(self) -> None:
        assert settings.METHODS == ("auto", *METHODS)
        assert settings.METRICS == tuple(METRICS)
        assert settings.ENGINES == ENGINES


def imported_aliases(node: ast.stmt) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


def modules() -> dict[str, Path]:
    """All modules of the package by dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements that may run, also inside functions; not those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if is_for_types(child):
            continue
        if isinstance(child, ast.stmt):
            yield child
        yield from statements(child)


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports: of the package as exactly as can be told, of others the top level."""
    found = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {str(node.module)}
    return {name if name.startswith("pytest_gradcam") else name.partition(".")[0] for name in found}


MODULES = modules()
IMPORTS = {name: imports(path, set(MODULES)) for name, path in MODULES.items()}
# The floors of the house: a module imports its own floor and those below.
FLOORS = [
    ["errors", "files", ""],
    ["cam"],
    [
        *(
            "metrics",
            "statistics",
            "regions",
            "rasters",
            "shapes",
            "images",
            "pictures",
            "transforms",
            "geometry",
            "probes",
        ),
        *("verdicts", "settings", "small_models", "strategies"),
    ],
    ["explanations"],
    ["assertions", "baselines", "audit", "comparison", "figures", "inspection", "loading", "report"],
    ["plugin", "cli", "demo"],
]


def floor_of(module: str) -> int:
    room = module.removeprefix("pytest_gradcam").removeprefix(".").split(".")[0]
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def reachable(module: str, seen: set[str] | None = None) -> set[str]:
    """The modules of the package that come with a module."""
    seen = set() if seen is None else seen
    for name in IMPORTS.get(module, set()):
        if name not in seen:
            seen.add(name)
            reachable(name, seen)
    return seen


class TestTheHouse:
    @pytest.mark.parametrize("module", MODULES)
    def test_nobody_imports_upwards(self, module: str) -> None:
        for name in IMPORTS[module]:
            if name.startswith("pytest_gradcam"):
                assert floor_of(name) <= floor_of(module), f"{module} imports {name}, which is above it"

    @pytest.mark.parametrize("module", MODULES)
    def test_there_is_no_circle(self, module: str) -> None:
        assert module not in reachable(module)

    @pytest.mark.parametrize(
        "module", [name for name in MODULES if floor_of(name) <= 4 or name.startswith("pytest_gradcam.report")]
    )
    def test_only_the_plugin_and_the_commands_know_pytest(self, module: str) -> None:
        for name in {module, *reachable(module)}:
            assert not IMPORTS.get(name, set()) & {"pytest", "_pytest"}, f"{name} imports pytest"

    @pytest.mark.parametrize(
        ("room", "unknown"),
        [
            ("cam", {"PIL", "timm", "torchvision", "hypothesis"}),
            ("metrics", {"torch", "torchvision", "timm", "PIL"}),
            ("verdicts", {"torch", "numpy", "cv2"}),
            ("settings", {"torch", "numpy", "pytest"}),
            ("report", {"torch", "timm"}),
            ("errors", {"torch", "numpy", "pytest"}),
        ],
    )
    def test_rooms_know_nothing_of(self, room: str, unknown: set[str]) -> None:
        inside = [name for name in MODULES if f"{name}.".startswith(f"pytest_gradcam.{room}.")]
        assert inside
        for name in inside:
            assert not IMPORTS[name] & unknown

    def test_cam_knows_only_itself_and_the_errors(self) -> None:
        for name in MODULES:
            if name.startswith("pytest_gradcam.cam"):
                ours = {other for other in IMPORTS[name] if other.startswith("pytest_gradcam")}
                assert all(other.startswith(("pytest_gradcam.cam", "pytest_gradcam.errors")) for other in ours)

    def test_these_rules_would_see_a_breach(self, tmp_path: Path) -> None:
        file = tmp_path / "breach.py"
        file.write_text(
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n"
            "def f():\n    from pytest_gradcam import plugin\n    import torch.nn\n"
            "from pytest_gradcam.cam import Explanation\n"
        )
        assert imports(file, set(MODULES)) == {"typing", "pytest_gradcam.plugin", "torch", "pytest_gradcam.cam"}
        assert floor_of("pytest_gradcam.plugin") > floor_of("pytest_gradcam.cam.explain")

    @pytest.mark.parametrize("module", MODULES)
    def test_no_file_holds_two_ideas(self, module: str) -> None:
        """About 400 lines, and a docstring that says what is in them."""
        text = MODULES[module].read_text()
        assert len(text.splitlines()) <= 420
        assert text.startswith(('"""', "")) and (not text.strip() or ast.get_docstring(ast.parse(text)))
