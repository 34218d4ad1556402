"""The `gradcam` command: reads the command line and hands over. What a subcommand does lives in its own module.

Only the standard library is imported here, so that `gradcam --help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pytest_gradcam import __version__


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
    return parser


def _demo(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.demo.session import run  # imports pytest: only this command pays for it

    return run(parsed.output_dir)


def _layers(parsed: argparse.Namespace) -> int:
    from pytest_gradcam.inspection import run  # imports torch: only this command pays for it

    return run(parsed.model, parsed.size, parsed.cls, parsed.all)
