"""The command line of `gradcam audit`. Nothing heavy is imported here, so that `gradcam --help` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_gradcam.settings import METHODS, METRICS


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command to the others, and give its parser."""
    audit = commands.add_parser(
        "audit",
        help="a whole data set: for which classes and slices does the model look elsewhere?",
        description="Explains every image of a data set, writes down what it measures, and judges how many look where "
        "they should. Killed and started again, it goes on where it was. Exit code 0 where enough images pass and "
        "nothing that was asked for fails, 1 where that is not so, 3 where it cannot be told, 2 where something is "
        "wrong with what was given.",
    )
    audit.add_argument(
        "--model", required=True, metavar="MODEL", help="a timm architecture, or module:factory of your own"
    )
    audit.add_argument("--checkpoint", metavar="FILE", help="file of the model's weights (default: timm's own)")
    audit.add_argument(
        "--transform", metavar="module:callable", help="picture to model input (default: what the model declares)"
    )
    audit.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="COCO's .json, a Pascal VOC folder, a .csv with boxes, a folder of images and masks; or module:data set",
    )
    audit.add_argument("--images", type=Path, metavar="DIR", help="folder of the images (default: beside the data)")
    audit.add_argument(
        "--labels", type=Path, metavar="FILE", help="the model's class names, one a line (default: what it carries)"
    )
    audit.add_argument(
        "--metric",
        action="append",
        choices=METRICS,
        metavar="NAME",
        help=f"what is measured: {', '.join(METRICS)}; may be given more than once, the first is judged "
        "(default: calibrated_energy)",
    )
    audit.add_argument("--threshold", type=float, metavar="X", help="least value that passes (default: the metric's)")
    audit.add_argument(
        "--pass-rate", type=float, default=0.9, metavar="X", help="least share that passes (default: %(default)s)"
    )
    audit.add_argument(
        "--confidence", type=float, default=0.95, metavar="X", help="of the decisions (default: %(default)s)"
    )
    audit.add_argument(
        "--slice",
        action="append",
        default=[],
        metavar="NAME",
        help="judged by itself too: class, or what the data say of their images; may be given more than once",
    )
    audit.add_argument(
        "--bad",
        choices=("failed", "excluded"),
        default="failed",
        help="what becomes of images without a measurement: they count as failed, or are left out (default: failed)",
    )
    audit.add_argument("--method", choices=METHODS, default="auto", metavar="NAME", help=", ".join(METHODS))
    audit.add_argument("--layer", metavar="NAME", help="layer that is read (default: it is found)")
    audit.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda:0, … (default: auto)")
    audit.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images at a time (default: %(default)s)"
    )
    audit.add_argument("--workers", type=int, metavar="N", help="processes that load images (default: by device)")
    audit.add_argument("--baseline", type=Path, metavar="DIR", help="folder of an earlier audit, to compare with")
    audit.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this machine, or a cluster (default: local)"
    )
    audit.add_argument("--address", metavar="HOST", help="of the ray cluster (default: ray's own search, else here)")
    audit.add_argument("--actors", type=int, metavar="N", help="models on the cluster (default: as many as fit)")
    audit.add_argument(
        "--out",
        type=Path,
        default=Path("gradcam-audit"),
        metavar="DIR",
        help="folder of the results (default: %(default)s)",
    )
    return audit
