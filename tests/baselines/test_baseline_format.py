"""Baselines as bytes: the same at every call, read back as they were, and refused by name whatever else they are."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.numpy import save

from pytest_gradcam import explain
from pytest_gradcam.baselines import format
from pytest_gradcam.baselines.baseline import Baseline, baseline_of
from pytest_gradcam.baselines.format import Received, dumps, loads, loads_received
from pytest_gradcam.baselines.names import CheckName
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.images import prepare
from tests.baselines.made import baseline, baselines, cam_of, opened, same, signed, texts
from tests.models import picture, small

VALID = dumps(baseline())
RECEIVED = Received("tests/__gradcam__/test_cats/x.safetensors", "tests/test_cats.py::test_x", "0" * 64, preview=True)


def refused(data: bytes, said: str) -> None:
    """The bytes give the documented error, whose text says this and does no harm to a terminal."""
    for read in (loads, loads_received):
        with pytest.raises(BaselineError, match=said) as caught:
            read(data)
        assert type(caught.value) is BaselineError
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1000


def header(fields: dict[str, Any], maps: bytes = b"") -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + maps


def changed(**values: Any) -> bytes:
    """A file with other metadata, and the digest that it then has."""
    about, tensors = opened(VALID)
    return signed({**about, **values}, tensors)


class TestRoundTrip:
    @settings(max_examples=300)
    @given(baselines())
    def test_what_is_read_is_what_was_written(self, made: Baseline) -> None:
        data = dumps(made)
        assert same(loads(data), made)
        assert dumps(loads(data)) == data == dumps(made)

    def test_the_bytes_are_the_same_in_every_process(self, tmp_path: Path) -> None:
        """Else every update would change every file of a repository."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from tests.baselines.made import baseline;"
            "from pytest_gradcam.baselines.format import dumps; sys.stdout.buffer.write(dumps(baseline()))"
        )
        root = Path(__file__).parents[2]
        for seed in ("0", "4242"):
            environment = {**os.environ, "PYTHONHASHSEED": seed}
            done = subprocess.run([sys.executable, "-c", code, root], env=environment, capture_output=True, check=True)
            assert done.stdout == VALID

    def test_the_bytes_are_the_same_in_every_version(self) -> None:
        """A file as the first version wrote it, written out here: schema 1 can be read for ever."""
        raw = np.array([[1.0, -1.0], [0.5, 0.0]], "<f4")
        cam = np.array([[1.0, 0.0], [0.5, 0.0]], "<f4")
        glance = np.full((1, 4, 4), 0.25, "<f4")
        about = {
            "schema": 1,
            "module": "test_a.py",
            "test": "test_x",
            "name": "",
            "method": "gradcam",
            "layer": "l",
            "layers": ["l"],
            "grid": [2, 2],
            "view": "NCHW 2×2",
            "class": 1,
            "label": None,
            "score": 2.5,
            "probability": 0.5,
            "predicted": 1,
            "size": [1, 1],
            "image": "tensor:" + "ab" * 16,
            "transform": "",
            "engine": "hooks",
            "device": "cpu",
            "versions": {"torch": "2.4.0"},
            "digest": "DIGEST",
        }
        text = json.dumps({name: value for name, value in about.items() if name != "digest"}, sort_keys=True)
        digest = hashlib.sha256(text.replace(", ", ",").replace(": ", ":").encode())
        for name, values in (("cam", cam), ("glance", glance), ("raw", raw)):
            digest.update(f"{name}{values.shape}".encode() + values.tobytes())
        about["digest"] = digest.hexdigest()[:32]
        fields = {
            "__metadata__": {"gradcam": json.dumps(about)},
            "raw": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
            "cam": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16, 32]},
            "glance": {"dtype": "F32", "shape": [1, 4, 4], "data_offsets": [32, 96]},
        }
        found = loads(header(fields, raw.tobytes() + cam.tobytes() + glance.tobytes()))
        assert found.check == CheckName("test_a.py", "test_x")
        assert (found.cls, found.score, found.layers, found.size) == (1, 2.5, ("l",), (1, 1))
        assert found.raw.tolist() == raw.tolist()

    def test_a_map_of_a_real_model_is_small(self) -> None:
        image = prepare(picture(28, 28))
        made = baseline_of(
            CheckName("test_classifier.py", "TestClassifier.test_looks_at_the_object[tabby-cat-017]", "ears"),
            explain(small(), image.tensor, 1),
            image,
        )
        assert made.grid == (7, 7)
        data = dumps(made)
        assert len(data) < 2048
        assert same(loads(data), made)

    def test_a_received_file_is_a_baseline_that_says_more(self) -> None:
        data = dumps(baseline(), RECEIVED)
        made, received = loads_received(data)
        assert received == RECEIVED
        assert same(made, baseline()) and same(loads(data), baseline())

    def test_a_baseline_is_no_received_file(self) -> None:
        with pytest.raises(BaselineError, match="there is nothing of ours in its metadata"):
            loads_received(VALID)

    @settings(max_examples=50)
    @given(texts, texts)
    def test_received_files_keep_any_path_and_id(self, target: str, id: str) -> None:
        received = replace(RECEIVED, target=target, id=id)
        assert loads_received(dumps(baseline(), received))[1] == received

    def test_a_label_may_hold_anything(self) -> None:
        """As those of `open("labels.txt").readlines()` do."""
        assert loads(dumps(baseline(label="tabby\n"))).label == "tabby\\n"

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"cls": -1}, "-1 is not between 0"),
            ({"method": "a\x1b[2J"}, "characters that steer a terminal"),
            ({"layer": "x" * 20_000}, "20000 characters"),
            ({"score": math.nan}, "its score is not finite"),
            ({"check": CheckName("test_\udcff.py", "test_x")}, "steer"),
        ],
    )
    def test_what_would_be_refused_is_not_written(self, change: dict[str, Any], said: str) -> None:
        with pytest.raises(BaselineError, match=said):
            dumps(baseline(**change))


class TestBroken:
    def test_cut_off_at_every_length(self) -> None:
        for length in range(len(VALID)):
            with pytest.raises(BaselineError, match=r"it is cut off|it has . bytes"):
                loads(VALID[:length])

    def test_every_single_bit(self) -> None:
        """A bit that is turned is seen, whichever it is, unless it spells the same (a hexadecimal digit of JSON)."""
        data = dumps(baseline(grid=(2, 2)))
        unseen = []
        for place in range(len(data) * 8):
            turned = bytearray(data)
            turned[place // 8] ^= 1 << place % 8
            try:
                found = loads(bytes(turned))
            except BaselineError:
                continue
            assert same(found, loads(data))
            unseen.append(data[place // 8 - 4 : place // 8 + 2])
        assert unseen in ([], [rb"\u00d7"])

    def test_something_behind_the_end(self) -> None:
        refused(VALID + b"\0", "no safetensors file")

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "it has 0 bytes: it is cut off, or no baseline"),
            (b"gradcam", "it has 7 bytes"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1312\n", "run `git lfs pull`"),
            (b"<<<<<<< HEAD\n" + VALID, "marks of a merge conflict: take one side whole"),
            (b"\x89PNG\r\n\x1a\n" + bytes(500), "no safetensors file"),
            (struct.pack("<Q", 0) + VALID[8:], "its header is no JSON"),
            (struct.pack("<Q", 2**64 - 1) + VALID[8:], "it is cut off"),
            (struct.pack("<Q", 2**21) + bytes(2**22), "it is cut off, or no safetensors file"),
            (header([]), "its header is no JSON object"),  # type: ignore[arg-type]
            (header({}), "somebody else's"),
            (header({"__metadata__": []}), "somebody else's"),
            (header({"__metadata__": {"gradcam": 7}}), "somebody else's"),
            (header({"__metadata__": {"gradcam": "[]"}}), "its metadata is no JSON object"),
            (header({"__metadata__": {"gradcam": "{"}}), "its metadata is no JSON"),
            (header({"__metadata__": {"gradcam": "{}"}}), "it has schema None, which is none"),
            (header({"__metadata__": {"gradcam": "[" * 100_000}}), "its metadata is no JSON"),
            (struct.pack("<Q", 100_000) + b"[" * 100_000, "its header is no JSON"),
            (struct.pack("<Q", 100_000) + b'{"a":' * 20_000, "its header is no JSON"),
            (struct.pack("<Q", 5000) + b"9" * 5000, "its header is no JSON"),
        ],
        ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
    )
    def test_what_is_no_baseline(self, data: bytes, said: str) -> None:
        refused(data, said)

    def test_the_safetensors_file_of_another_package(self) -> None:
        weights = {"weight": np.ones((3, 3), np.float32)}
        refused(save(weights), "a safetensors file of somebody else's")
        refused(save(weights, metadata={"format": "pt"}), "a safetensors file of somebody else's")

    def test_more_bytes_than_any_baseline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(format, "MOST_BYTES", len(VALID) - 1)
        refused(VALID, f"it has {len(VALID)} bytes, more than")

    @pytest.mark.parametrize("key", ['"__metadata__"', '"raw"', '"dtype"', '\\"class\\"', '\\"gradcam\\"', '"gradcam"'])
    def test_a_key_twice(self, key: str) -> None:
        """Two readers might take different ones."""
        (length,) = struct.unpack("<Q", VALID[:8])
        text = VALID[8 : 8 + length].decode()
        if key == '\\"gradcam\\"':
            text, key = text.replace('\\"name\\"', '\\"gradcam\\":1,\\"gradcam\\":1,\\"name\\"', 1), '\\"gradcam\\"'
        else:
            value = re.search(re.escape(key) + r":(\{.*?\}\"?\}|\{.*?\}|\".*?\"|\d+)", text)
            assert value is not None
            text = text.replace(key, f"{key}:{value[1] if value[1][0] != '{' else '{}'},{key}", 1)
        twice = struct.pack("<Q", len(text.encode())) + text.encode() + VALID[8 + length :]
        refused(twice, "is no JSON: ")

    @pytest.mark.parametrize("schema", [None, 0, -1, "1", 1.0, True, [1], "x" * 9000])
    def test_a_schema_that_is_none(self, schema: Any) -> None:
        refused(changed(schema=schema), "which is none")

    @pytest.mark.parametrize("schema", [2, 10**9, 10**4000])
    def test_a_newer_schema(self, schema: int) -> None:
        refused(changed(schema=schema), "written by a newer one. Upgrade pytest-gradcam")

    def test_metadata_that_was_changed(self) -> None:
        about, tensors = opened(VALID)
        for name, value in (("class", 282), ("score", 8.6), ("image", "picture:" + "0" * 32), ("extra", 1)):
            data = save(tensors, metadata={"gradcam": json.dumps({**about, name: value})})
            refused(data, "its digest does not match: it was changed after it was written")
        del about["digest"]
        refused(save(tensors, metadata={"gradcam": json.dumps(about)}), "its digest does not match")

    def test_maps_that_were_changed(self) -> None:
        about, tensors = opened(VALID)
        for name in tensors:
            other = {**tensors, name: tensors[name] * np.float32(1.0001)}
            refused(save(other, metadata={"gradcam": json.dumps(about)}), "its digest does not match")

    def test_brackets_that_can_be_read_and_not_written(self) -> None:
        about, tensors = opened(VALID)
        for depth in range(900, 1000, 3):
            text = json.dumps({**about, "class": "HERE"}).replace('"HERE"', "[" * depth + "]" * depth)
            refused(save(tensors, metadata={"gradcam": text}), "no JSON|digest does not match")


class TestForged:
    """Somebody who knows the format recomputes the digest; what is no baseline is refused all the same."""

    @pytest.mark.parametrize("field", sorted(set(opened(VALID)[0]) - {"schema", "digest"}))
    def test_a_field_of_another_type_or_none_at_all(self, field: str) -> None:
        about, tensors = opened(VALID)
        optional = ("class", "label", "probability", "predicted")
        was = about[field]
        numbers: list[Any] = [] if field in ("score", "probability") else [0.5]
        wrong = [None, True, [], {}, "x", 7, [None], [[]], {"a": 1}, *numbers]
        for value in wrong:
            is_allowed = (value is None and field in optional) or type(value) is type(was)
            if not is_allowed and not (field in ("score",) and value == 7):
                refused(changed(**{field: value}), "is not what a baseline has|its probability is|its CAM")
        del about[field]
        refused(signed(about, tensors), f"its metadata is not what a baseline has: there is no '{field}'")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"class": -1}, "-1 is not between 0"),
            ({"class": 10**400}, "is not between"),
            ({"predicted": -5}, "-5 is not between"),
            ({"score": 10**400}, "too large"),
            ({"score": math.nan}, "its score is not finite"),
            ({"score": -math.inf}, "its score is not finite"),
            ({"probability": math.nan}, "its score is not finite"),
            ({"probability": -0.1}, "its probability is -0.1"),
            ({"probability": 1.5}, "its probability is 1.5"),
            ({"size": [0, 0]}, "0 is not between 1"),
            ({"size": [224, -1]}, "-1 is not between 1"),
            ({"size": [224]}, "not enough values"),
            ({"size": [1, 2, 3]}, "too many values"),
            ({"size": [2**40, 7]}, "is not between"),
            ({"grid": [7, 8]}, r"grid \[7, 8\] is not that of its map, \[7, 7\]"),
            ({"grid": [7.0, 7]}, "7.0 is no int"),
            ({"grid": [1] * 100_000}, "is not that of its map"),
            ({"layers": ["a"] * 100_000}, "100000 layers and 3 versions are too many"),
            ({"layers": ["a" * 100_000]}, "has 100000 characters"),
            ({"layers": ["a", 7]}, "7 is no str"),
            ({"versions": {str(i): "1" for i in range(5000)}}, "too many"),
            ({"versions": {"torch": 2}}, "2 is no str"),
            ({"versions": {"torch\n": "2"}}, "steer a terminal"),
            ({"image": "picture"}, "its image is 'picture', which is no digest of one"),
            ({"image": "photo:" + "0" * 32}, "no digest of one"),
            ({"image": "picture:" + "0" * 32 + "\n"}, "steer a terminal"),
            ({"method": "grad\x1b[31mcam"}, "steer a terminal"),
            ({"layer": "a\x9b2J"}, "steer a terminal"),
            ({"label": "cat\u202egod"}, "steer a terminal"),
            ({"test": "test_x\r\n"}, "steer a terminal"),
            ({"module": "test_\ud800.py"}, "steer a terminal"),
            ({"view": "\0"}, "steer a terminal"),
            ({"extra": 1}, r"it has \['extra'\], which no baseline has"),
            ({"\x1b[2J": "x" * 5000}, r"it has \['.x1b\[2J'\], which no baseline has"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_values_that_nobody_would_have_written(self, change: dict[str, Any], said: str) -> None:
        refused(changed(**change), said)

    @pytest.mark.parametrize("name", ["raw", "cam", "glance"])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_maps_that_are_not_finite(self, name: str, value: float) -> None:
        about, tensors = opened(VALID)
        tensors[name] = tensors[name].copy()
        tensors[name].flat[5] = value
        refused(signed(about, tensors), "it has values that are NaN or infinite")

    @pytest.mark.parametrize("raw", [np.zeros((7, 7), np.float32), -np.ones((7, 7), np.float32)])
    def test_a_map_without_evidence(self, raw: Any) -> None:
        about, tensors = opened(VALID)
        refused(signed(about, {**tensors, "raw": raw}), "its map has no evidence")

    def test_a_cam_that_is_not_of_its_raw_cam(self) -> None:
        about, tensors = opened(VALID)
        cam = tensors["cam"]
        for other in (cam[::-1].copy(), cam * np.float32(0.999), cam + np.float32(2e-5), np.ones_like(cam), cam[:, :6]):
            refused(
                signed(about, {**tensors, "cam": np.ascontiguousarray(other)}), "its CAM is not that of its raw CAM"
            )

    @pytest.mark.parametrize("name", ["raw", "cam", "glance"])
    @pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_])
    def test_maps_of_other_types(self, name: str, dtype: Any) -> None:
        about, tensors = opened(VALID)
        refused(signed(about, {**tensors, name: tensors[name].astype(dtype)}), f"its {name} is .* it must be F32")

    @pytest.mark.parametrize("name", ["raw", "cam", "glance"])
    @pytest.mark.parametrize("shape", [(), (0, 0), (0, 4, 4), (49,), (1, 7, 7), (1, 1, 1, 7)])
    def test_maps_of_other_shapes(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) == (3 if name == "glance" else 2) and 0 not in shape:
            pytest.skip("that is a shape it may have")
        about, tensors = opened(VALID)
        refused(
            signed(about, {**tensors, name: np.ones(shape, np.float32)}), f"its {name} is F32 .* it must be F32 with"
        )

    def test_maps_that_are_missing_or_too_many(self) -> None:
        about, tensors = opened(VALID)
        extra = {**tensors, "\x1b[2J": tensors["raw"]}
        refused(signed(about, extra), r"it holds \['.x1b\[2J', 'cam', 'glance', 'raw'\], and not cam, glance, raw")
        without = {"gradcam": json.dumps(about)}
        refused(save({"raw": tensors["raw"]}, metadata=without), r"it holds \['raw'\], and not cam, glance, raw")

    @pytest.mark.parametrize("shape", [(3, 2, 4), (3, 4, 5), (3, 1, 1)])
    def test_a_glance_of_another_shape(self, shape: tuple[int, int, int]) -> None:
        about, tensors = opened(VALID)
        refused(signed(about, {**tensors, "glance": np.ones(shape, np.float32)}), "its glance is")

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e38])
    def test_maps_at_the_ends_of_float32(self, scale: float) -> None:
        raw = np.array([[1.0, 3.0], [-2.0, 0.0]]) * scale
        made = baseline(grid=(2, 2), raw=raw.astype(np.float32), cam=cam_of(raw.astype(np.float32)))
        assert same(loads(dumps(made)), made)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"target": None}, "None is no str"),
            ({"target": "a\nb"}, "steer a terminal"),
            ({"id": "\x1b]0;x\x07"}, "steer a terminal"),
            ({"preview": 1}, "1 is no bool"),
            ({"replaces": ["x"]}, r"\['x'\] is no str"),
            ({"id": "x" * 100_000}, "100000 characters"),
        ],
    )
    def test_what_a_received_file_says_besides(self, change: dict[str, Any], said: str) -> None:
        about, tensors = opened(VALID)
        received = {"target": "a", "id": "b", "replaces": "", "preview": False}
        metadata = {"gradcam": json.dumps(about), "received": json.dumps({**received, **change})}
        with pytest.raises(BaselineError, match=f"its metadata is not what a received file has: .*{said}"):
            loads_received(save(tensors, metadata=metadata))
        for name in received:
            left = {key: value for key, value in received.items() if key != name}
            metadata["received"] = json.dumps(left)
            with pytest.raises(BaselineError, match=f"there is no '{name}'"):
                loads_received(save(tensors, metadata=metadata))


class TestNothingIsRun:
    @pytest.mark.parametrize("kind", ["pickle", "torch.save", "zip", "numpy"])
    def test_a_pickle_does_nothing(self, kind: str, tmp_path: Path) -> None:
        bomb = Bomb(str(tmp_path / "exploded"))
        written = io.BytesIO()
        make: dict[str, Callable[[], object]] = {
            "pickle": lambda: pickle.dump(bomb, written),
            "torch.save": lambda: torch.save({"bomb": bomb}, written),
            "zip": lambda: zipfile.ZipFile(written, "w").writestr("archive/data.pkl", pickle.dumps(bomb)),
            "numpy": lambda: np.save(written, np.array([bomb], object), allow_pickle=True),
        }
        make[kind]()
        refused(written.getvalue(), "it is cut off, or no|its header is no JSON")
        assert not (tmp_path / "exploded").exists()
        pickle.loads(pickle.dumps(bomb))  # it would have worked
        assert (tmp_path / "exploded").exists()

    def test_reading_loads_no_pickle(self) -> None:
        """Reading and writing call nothing of pickle's, of numpy's object arrays or of torch's loading."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from tests.baselines.made import baseline\n"
            "from pytest_gradcam.baselines.format import dumps, loads\n"
            "import pickle, _pickle, torch, numpy\n"
            "def boom(*args, **kwargs): raise SystemExit('pickle was used')\n"
            "for module, name in [(pickle, 'loads'), (pickle, 'load'), (pickle, 'Unpickler'), (_pickle, 'loads'),"
            " (_pickle, 'load'), (_pickle, 'Unpickler'), (torch, 'load'), (numpy, 'load')]:\n"
            "    setattr(module, name, boom)\n"
            "made = loads(dumps(baseline()))\n"
            "assert made.raw.dtype == 'float32'; print('fine')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, Path(__file__).parents[2]], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


class Bomb:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path(self.path).touch, ())


def test_random_maps_are_told_apart_by_their_digest() -> None:
    rng = random.Random(0)
    seen = {format.digest_of(dumps(baseline(seed=rng.randrange(10**9)))) for _ in range(200)}
    assert len(seen) == 200
