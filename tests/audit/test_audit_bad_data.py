"""A data set in which everything is wrong: every image is a row that says why, and nothing takes the audit down."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from tests.audit.broken import CASES, Case, broken_data_set, to_input
from tests.audit.scenes import audited

PEAKS = """
import json, resource, sys, warnings
from pathlib import Path
from PIL import Image
from tests.audit.broken import CASES, broken_data_set, to_input
from tests.audit.scenes import audited

warnings.simplefilter("ignore", Image.DecompressionBombWarning)
folder = Path(sys.argv[1])
goods = [case for case in CASES if case.status == "measured"]
bombs = [case for case in CASES if case.name.startswith("bomb")]
peaks = []
for name, cases in (("goods", goods), ("again", goods), ("bombs", [*goods, *bombs])):
    data = broken_data_set(folder / name, cases)
    audited(data, folder / name / "out", transform=to_input)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return broken_data_set(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_every_image_is_a_row_that_says_why(data: Path, tmp_path: Path, action: Literal["error", "ignore"]) -> None:
    """Whether PIL's warning of a bomb is an error, as here, or not, as elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        report = audited(data, tmp_path / "out", transform=to_input)
    rows = report.rows(["index", "status", "reason", "notes"]).to_pylist()
    assert [row["index"] for row in rows] == list(range(len(CASES)))
    for case, row in zip(CASES, rows, strict=True):
        assert row["status"] == case.status, (case.name, row)
        said = row["notes"] if case.status == "measured" else row["reason"]
        assert re.search(case.said, said), (case.name, row)
        assert (row["reason"] == "") == (case.status == "measured")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_workers_that_load_it_are_not_taken_down_either(data: Path, tmp_path: Path) -> None:
    alone, helped = (audited(data, tmp_path / str(n), transform=to_input, workers=n).rows() for n in (0, 2))
    assert alone.equals(helped)


def test_two_annotations_of_one_id_spoil_each_other(tmp_path: Path) -> None:
    twice = [{"bbox": [8, 8, 24, 24], "id": 1}, {"bbox": [30, 30, 24, 24], "id": 1}]
    report = audited(
        broken_data_set(tmp_path, [Case("a.png", "unusable region", annotations=twice), Case("good.png", "measured")]),
        tmp_path / "out",
        transform=to_input,
    )
    rows = report.rows(["status", "reason"]).to_pylist()
    assert [row["status"] for row in rows] == ["unusable region", "measured"]
    assert "another annotation has the same id, and is not the same" in rows[0]["reason"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no module resource")
def test_bombs_are_not_decoded(tmp_path: Path) -> None:
    """20,000×20,000 pixels are 1.2 GB of RGB, 12,000×12,000 are 430 MB; the peak rises by less than a tenth of that."""
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path)], check=True, capture_output=True, text=True, cwd=Path.cwd()
    )
    _, before, after = json.loads(done.stdout.splitlines()[-1])
    assert after - before < 40 * (2**20 if sys.platform == "darwin" else 2**10)
    assert Image.MAX_IMAGE_PIXELS is not None and 12_000**2 > Image.MAX_IMAGE_PIXELS > 12_000**2 // 2
