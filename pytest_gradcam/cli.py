"""The `gradcam` command: reads the command line and hands over. What a subcommand does lives in its own module.

Nothing heavy is imported here, so that `gradcam --help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pytest_gradcam import __version__
from pytest_gradcam.audit import options as audit_command
from pytest_gradcam.settings import ENGINES, FLOORS, METHODS


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `gradcam` command.

    Args:
        arguments: the command line without the program's name; None: that of the process.

    Returns:
        the exit code: 0 where the subcommand did what it is for, 1 where it did not. A command line that cannot be
        understood, `--help` and `--version` leave through `SystemExit`, as argparse has it (2, 0 and 0).
    """
    parsed = _parser().parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradcam",
        description="Tests that fail when an image model is right for the wrong reason. "
        "The tests themselves are run by pytest; this command holds what is beside them.",
    )
    parser.add_argument("--version", action="version", version=f"pytest-gradcam {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)

    demo = commands.add_parser(
        "demo",
        help="see it work: two models with the same accuracy, and the test that tells them apart",
        description="Runs a real pytest session over two tiny models that come with the package. Both classify "
        "everything right; one reads the object, the other a stamp in the corner. Exit code 0 exactly when "
        "the accuracy test passed for both, and the attention test passed for the first and caught the second.",
    )
    demo.add_argument(
        "--output-dir",
        type=Path,
        default=Path("gradcam-report"),
        metavar="FOLDER",
        help="folder of the overlays, made where it is missing (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)

    layers = commands.add_parser(
        "layers",
        help="which layers of a model could be explained, how they are read, and the one that is taken",
        description="Searches a model for its target layer as explain does, and shows what it sees: each layer whose "
        "output could be a grid over the image, the last one first, how it is read, and why it is taken or not. Exit "
        "code 0 where a layer is taken.",
    )
    layers.add_argument("model", metavar="MODEL", help="a timm architecture, or module:factory of your own")
    layers.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="N",
        help="input as HEIGHT WIDTH or CHANNELS HEIGHT WIDTH (default: what the model declares, else 3 224 224)",
    )
    layers.add_argument(
        "--cls", type=int, metavar="N", help="class whose score is asked for (default: the predicted one)"
    )
    layers.add_argument("--all", action="store_true", help="also the layers on which the score does not depend")
    layers.set_defaults(run=_layers)

    approve = commands.add_parser(
        "approve",
        help="make maps that a failed run has left the new baselines",
        description="A failed `gradcam.check` leaves its map in the report's folder, to be approved. Without "
        "arguments, lists what waits. Exit code 0 where all that was asked for was done.",
    )
    which = approve.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="approve all that waits")
    which.add_argument(
        "which",
        nargs="*",
        default=[],
        metavar="ID",
        help="a test as pytest prints it, all of a test file or class, the path of a baseline, or a file "
        "approvals.json as the report's page saves it",
    )
    _add_places(approve)
    approve.set_defaults(run=_approve)

    review = commands.add_parser(
        "review",
        help="look at what changed, map by map, and approve or reject it",
        description="Shows each map that waits beside its baseline, and asks what becomes of it. Exit code 0 where "
        "nothing is left.",
    )
    _add_places(review)
    review.set_defaults(run=_review)

    diff = commands.add_parser(
        "diff",
        help="compare the baselines of two folders, or of two git revisions",
        description="Compares the baselines in all __gradcam__ folders below A and B, by their paths, and lists what "
        "differs, worst first. Exit code 0 where nothing does, 1 where something does, 2 where something cannot be "
        "read.",
    )
    for name in ("A", "B"):
        diff.add_argument(name, help="a folder, or a revision where there is no folder of that name")
    diff.add_argument(
        "--folder",
        type=Path,
        default=Path("."),
        metavar="PATH",
        help="folder whose revisions are compared (default: the one you are in)",
    )
    diff.add_argument(
        "--floor",
        choices=FLOORS,
        default="same_weights",
        help="how close two maps must be to count as the same (default: %(default)s)",
    )
    diff.set_defaults(run=_diff)

    _add_compare(commands)
    _add_explain(commands)
    audit_command.add(commands).set_defaults(run=_audit)
    return parser


def _add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = commands.add_parser(
        "explain",
        help="a figure of where a model looks in a picture; by many methods and layers, as a sheet",
        description="Saves a figure as PNG: what the model saw, the class activation map, the map over the picture, "
        "and the likeliest classes. With --methods or --layers a contact sheet, a tile for each. Exit code 0 where "
        "there is a map, 1 where nothing in the picture speaks for the class, 2 where the model or the picture cannot "
        "be had.",
    )
    explain.add_argument("image", type=Path, metavar="IMAGE", help="file of the picture")
    explain.add_argument(
        "--model", required=True, metavar="MODEL", help="a timm architecture, or module:factory of your own"
    )
    explain.add_argument("--checkpoint", metavar="FILE", help="file of the model's weights (default: timm's own)")
    explain.add_argument(
        "--transform", metavar="module:callable", help="picture to model input (default: what the model declares)"
    )
    explain.add_argument(
        "--cls", type=_class, metavar="N|LABEL", help="class that is explained (default: the predicted one)"
    )
    method = explain.add_mutually_exclusive_group()
    method.add_argument("--method", choices=METHODS, default="auto", metavar="NAME", help=", ".join(METHODS))
    method.add_argument("--methods", metavar="LIST", help="a sheet of these, with commas between them; or all")
    layer = explain.add_mutually_exclusive_group()
    layer.add_argument("--layer", metavar="NAME", help="layer that is read (default: it is found)")
    layer.add_argument(
        "--layers", metavar="LIST", help="a sheet of these, with commas between them; or all that can be read"
    )
    explain.add_argument("--engine", choices=ENGINES, default="hooks", help="default: %(default)s")
    explain.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda:0, … (default: auto)")
    explain.add_argument(
        "--colormap", default="jet", metavar="NAME", help="jet, viridis, magma, cividis, … (default: jet)"
    )
    explain.add_argument(
        "--top", type=_count, default=5, metavar="K", help="classes that are shown (default: %(default)s)"
    )
    explain.add_argument(
        "--out", type=Path, metavar="FILE", help="the figure (default: IMAGE's name with -gradcam.png, in this folder)"
    )
    explain.set_defaults(run=_explain)


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="two models on a folder of pictures: where did attention move most?",
        description="Explains what the first model predicts for each picture with both models, and shows where "
        "attention moved, the worst first: a table, and a report with a picture for each of its rows. Exit code 0 "
        "where all pictures are at the floor or above, 1 where some are not, 2 where the models or the pictures "
        "cannot be had.",
    )
    compare.add_argument(
        "--model",
        action=_OfModel,
        required=True,
        metavar="MODEL",
        help="a timm architecture, or module:factory of your own; give it twice",
    )
    compare.add_argument(
        "--checkpoint", action=_OfModel, metavar="FILE", help="file of weights, of the --model before it"
    )
    compare.add_argument(
        "--transform",
        action=_OfModel,
        metavar="module:callable",
        help="picture to model input, of the --model before it (default: what the model declares)",
    )
    compare.add_argument(
        "--images", type=Path, required=True, metavar="DIR", help="folder of pictures, with those below"
    )
    compare.add_argument(
        "--cls", type=int, metavar="N", help="class whose maps are compared (default: what the first model predicts)"
    )
    compare.add_argument("--method", choices=METHODS, default="auto", metavar="NAME", help=", ".join(METHODS))
    compare.add_argument(
        "--layer", metavar="NAME", help="layer of both models (default: found in the first, and read in both)"
    )
    compare.add_argument(
        "--out",
        type=Path,
        default=Path("gradcam-report", "compare"),
        metavar="DIR",
        help="folder of the report, made where it is missing (default: %(default)s)",
    )
    compare.add_argument(
        "--top", type=_count, default=20, metavar="N", help="rows that are shown (default: %(default)s)"
    )
    compare.add_argument(
        "--floor",
        choices=FLOORS,
        default="retrained",
        help="least correlation of the maps: .999 of the same weights, .9 of others (default: %(default)s)",
    )
    compare.set_defaults(run=_compare, refuse=compare.error)


class _OfModel(argparse.Action):
    """`--model` begins a model; what belongs to one is of the `--model` before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add to `namespace.models`, a dict for each model."""
        models: list[dict[str, Any]] = [*getattr(namespace, "models", [])]
        if self.dest == "model":
            models.append({})
        elif not models:
            parser.error(f"{option_string} is of the --model before it: give that first")
        elif self.dest in models[-1]:
            parser.error(f"{option_string} is given twice for --model {models[-1]['model']}")
        models[-1] = {**models[-1], self.dest: values}
        namespace.models = models


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is no number of rows: give 0 or more")
    return value


def _class(text: str) -> int | str:
    """A class index, or a label."""
    try:
        return int(text)
    except ValueError:
        return text


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--report",
        type=Path,
        default=Path("gradcam-report"),
        metavar="FOLDER",
        help="folder of the run's report (default: %(default)s)",
    )
    command.add_argument(
        "--rootdir",
        type=Path,
        default=Path("."),
        metavar="FOLDER",
        help="pytest's rootdir, which it prints when it starts (default: the folder you are in)",
    )


def _demo(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.demo.session import run  # imports pytest: only this command pays for it

    return run(parsed.output_dir)


def _layers(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.inspection import run  # imports torch: only this command pays for it

    return run(parsed.model, parsed.size, parsed.cls, parsed.all)


def _explain(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.figures.command import Wanted, run  # imports torch: only this command pays for it

    names = [field.name for field in fields(Wanted)]
    return run(Wanted(**{name: getattr(parsed, name) for name in names}))


def _audit(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.audit.command import Wanted, run  # imports torch: only this command pays for it

    names = [field.name for field in fields(Wanted)]
    return run(Wanted(**{name: getattr(parsed, name) for name in names}))


def _compare(parsed: argparse.Namespace) -> int:
    if len(parsed.models) != 2:
        parsed.refuse(f"--model is given {len(parsed.models)} times: give the two models that are compared")
    from pytest_gradcam.comparison.command import run  # imports torch: only this command pays for it

    return run(
        parsed.models,
        parsed.images,
        cls=parsed.cls,
        method=parsed.method,
        layer=parsed.layer,
        out=parsed.out,
        top=parsed.top,
        floor=parsed.floor,
    )


def _approve(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.baselines.commands.approve import run  # imports torch: only this command pays for it

    return run(parsed.report, parsed.rootdir, parsed.all, parsed.which)


def _review(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.baselines.commands.review import run  # imports torch: only this command pays for it

    return run(parsed.report, parsed.rootdir)


def _diff(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.baselines.commands.diff import run  # imports torch: only this command pays for it

    return run(parsed.A, parsed.B, parsed.folder, parsed.floor)
