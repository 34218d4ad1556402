"""What a report of a thousand verdicts costs: its pictures, the page, and how soon a browser shows it.

    python -m benchmarks.report [--count 1000] [--failed 1.0] [--rounds 3] [--folder FOLDER] [--no-browser]

The verdicts are made one by one: photographs of 224×224 from scikit-image, cropped at random, with maps on a 7×7 grid
and boxes; every other one compares two maps. What is timed is `pictures_of` of each, and `write_page` of all; `CPU` is
what both and the making of the verdicts take of a processor, which a busy machine blurs less. Memory is what the peak
of the process rises above what was resident before the first verdict, with all records held, as the plugin holds them.
The first paint is Chromium's own, of a file that was just written; `ready` is when the list can be filtered, `search`
how long the first search takes. All verdicts fail unless told otherwise, so that none is left out.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.memory import _forget_peak, _status
from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.regions import Region
from pytest_gradcam.report.page.page import write_page
from pytest_gradcam.report.page.pictures import pictures_of
from pytest_gradcam.verdicts import Place, Sight, Verdict

SIDE = 224
GRID = 7
MIB = 2**20


def photographs() -> list[npt.NDArray[np.uint8]]:
    """Those of scikit-image that come with it; where it is missing, textures of noise on several scales."""
    try:
        from skimage import data

        names = ("astronaut", "coffee", "chelsea", "rocket", "camera", "grass", "gravel", "brick")
        found = [np.asarray(getattr(data, name)()) for name in names]
    except ImportError:
        random = np.random.default_rng(0)
        octaves = [random.normal(size=(512 >> k, 512 >> k, 3)).astype(np.float32) * 2.0**k for k in range(1, 7)]
        texture = sum(cv2.resize(octave, (512, 512)) for octave in octaves)
        found = [np.clip(texture * 8 + 128, 0, 255).astype(np.uint8)]
    return [each if each.ndim == 3 else np.repeat(each[..., None], 3, axis=-1) for each in found]


def verdicts(count: int, failed: float) -> Iterator[Verdict]:
    """Verdicts as the assertions make them, every other one of two maps of a picture."""
    random = np.random.default_rng(0)
    photos = photographs()
    for number in range(count):
        photo = photos[number % len(photos)]
        side = int(random.integers(SIDE, min(photo.shape[:2]) + 1))
        top, left = (int(random.integers(0, extent - side + 1)) for extent in photo.shape[:2])
        image = cv2.resize(photo[top : top + side, left : left + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        yield _verdict(np.asarray(image, np.uint8), random, number, number < failed * count)


def _verdict(image: npt.NDArray[np.uint8], random: np.random.Generator, number: int, is_failed: bool) -> Verdict:
    x0, y0 = (int(each) for each in random.integers(0, SIDE - 80, 2))
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[y0 : y0 + 80, x0 : x0 + 64] = 1.0
    place = Place(Region.box(x0, y0, x0 + 64, y0 + 80), mask, (SIDE, SIDE), 0.102, 0.81, 0.2, (5, 89), 31.0)
    y, x = np.mgrid[:GRID, :GRID]
    maps = []
    for _ in range(2):
        row, column = random.uniform(0, GRID, 2)
        raw = np.exp(-((x - column) ** 2 + (y - row) ** 2) / 3) + 0.05 * random.normal(size=(GRID, GRID))
        maps.append(raw.astype(np.float32))
    sights = tuple(
        Sight(
            Explanation(
                raw=raw,
                evidence=3.5,
                cls=number % 1000,
                label=f"class name {number % 1000}",
                score=7.25,
                probability=0.93,
                predicted=number % 1000,
                predicted_label=f"class name {number % 1000}",
                predicted_probability=0.93,
                layer="layer4.1",
                grid=(GRID, GRID),
                method="grad-cam",
                engine="hooks",
                device="cpu",
                seconds=0.031,
                size=(SIDE, SIDE),
                look=lambda: image,
            ),
            place,
        )
        for raw in maps
    )
    value = float(random.uniform(-0.5, 0.14) if is_failed else random.uniform(0.15, 1.0))
    verdict = Verdict(
        assertion="assert_attention_in_region",
        outcome="failed" if is_failed else "passed",
        metric="calibrated_energy",
        value=value,
        values=(value,),
        chance=0.0,
        threshold=0.15,
        at_most=False,
        interval=None,
        confidence=None,
        sights=sights[:1],
        worst=0,
        message=f"class {number} is not explained by the box: calibrated energy {value:.2f}, needs 0.15",
        facts=(("energy", "0.20 of the map's mass is in the box"), ("predicted", "class name, p = 0.93")),
    )
    if number % 2:
        named = (replace(sights[0], title="baseline"), replace(sights[1], title="current"))
        return replace(
            verdict, sights=named, compared=True, assertion="check", baseline=f"tests/test_{number}.py::test_x"
        )
    return verdict


def measure(count: int, failed: float, folder: Path) -> tuple[dict[str, float], Path]:
    """One report: seconds, bytes and MiB."""
    nodes = [f"tests/test_{n % 20}.py::TestAll::test_reads_the_object[photo-{n:04}]" for n in range(count)]
    made, pictured = [], 0.0
    for warm in verdicts(4, 1.0):
        pictures_of(warm)
    gc.collect()
    _forget_peak()
    before = _status("VmRSS") or 0
    cpu = time.process_time()
    for node, verdict in zip(nodes, verdicts(count, failed), strict=True):
        start = time.perf_counter()
        pictures = pictures_of(verdict)
        pictured += time.perf_counter() - start
        record: dict[str, Any] = {**verdict.to_json(), "nodeid": node, "maps": [], "failed": not verdict.passed}
        waits = "gradcam-report/received/x.safetensors" if verdict.baseline and not verdict.passed else None
        more = {"file": "tests/test_x.py", "line": 12, "markers": ["slow"], "model": "ResNet", "received": waits}
        made.append(record | more | {"pictures": pictures, "folder": "gradcam-report", "overlay": None})
    texts = sum(sum(map(len, record["pictures"].values())) for record in made)
    start = time.perf_counter()
    path = write_page(folder, made, title="a thousand verdicts", about={"python": "3.11", "platform": "Linux"})
    written = time.perf_counter() - start
    cpu = time.process_time() - cpu
    assert path is not None
    peak = ((_status("VmHWM") or 0) - before) / MIB
    figures = {
        "pictures_of s": pictured,
        "write_page s": written,
        "together s": pictured + written,
        "CPU s": cpu,
        "KB a verdict": texts / count / 1e3,
        "page MB": path.stat().st_size / 1e6,
        "results.json MB": (folder / "results.json").stat().st_size / 1e6,
        "peak MiB": peak,
    }
    return figures, path


def browse(path: Path) -> dict[str, float]:
    """When Chromium paints first, when the list can be filtered, and how long one filter takes; in seconds."""
    from tests.browser.chrome import chrome

    with tempfile.TemporaryDirectory() as downloads, chrome(Path(downloads)) as window:
        window.open(path)
        window.until("return performance.getEntriesByName('gradcam-ready').length")
        painted = window.until("return performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
        ready = window.run("return performance.getEntriesByName('gradcam-ready')[0].startTime")
        filtered = window.run(
            "const start = performance.now(), q = document.querySelector('#q'); q.value = 'photo-0007';"
            "q.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - start"
        )
        shown = len(window.shown)
        assert shown == 1, shown
        return {"first paint s": painted / 1e3, "ready s": ready / 1e3, "search s": filtered / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--failed", type=float, default=1.0, help="share of the verdicts that fail")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the last page is left")
    parser.add_argument("--no-browser", action="store_true")
    arguments = parser.parse_args()
    rounds: list[dict[str, float]] = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as temporary:
            figures, path = measure(arguments.count, arguments.failed, arguments.folder or Path(temporary))
            rounds.append(figures | ({} if arguments.no_browser else browse(path)))
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:<18} {statistics.median(values):8.2f}   {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    main()
