"""The ray engine: its rows are those of the local one, on any number of actors, and whatever dies meanwhile."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import timm
import torch
from ray.cluster_utils import Cluster
from torch import nn

from pytest_gradcam.audit.engines.ray import packed
from pytest_gradcam.audit.store import Folder
from pytest_gradcam.errors import SettingsError, TargetLayerError
from tests.audit.clusters import Dying, Telling
from tests.audit.data.generated import coco_data_set
from tests.audit.scenes import SIDE, Scenes, audited, scenes

PROCESSORS = 4
STORE = 80 * 2**20  # bytes; ray takes no less than 75 MiB
LONGEST = 60.0  # seconds until something must have happened

# Ray Data warns of the names of its own settings, as it makes them.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One machine of four processors, others may come; it is told within seconds that one is gone."""
    fast = {"health_check_period_ms": 300, "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3}
    head = {
        "num_cpus": PROCESSORS,
        "object_store_memory": STORE,
        "include_dashboard": False,
        "_system_config": fast | {"health_check_initial_delay_ms": 1000},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # it would be told to its makers
        found = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=found.address, log_to_driver=False, logging_level=logging.ERROR)
        yield found
        ray.shutdown()
        found.shutdown()  # type: ignore[no-untyped-call]  # ray's own cluster for tests has no types


@pytest.mark.usefixtures("cluster")
class TestRows:
    @pytest.mark.parametrize("actors", [1, 2, 4])
    def test_are_those_of_the_local_engine(self, tmp_path: Path, actors: int) -> None:
        data = Scenes(scenes(600, hidden=0.2))  # five parts
        local = audited(data, tmp_path / "local")
        far = audited(data, tmp_path / "far", engine="ray", cluster={"actors": actors})
        assert far.rows().equals(local.rows())
        assert far.judged == local.judged
        assert list((tmp_path / "far" / "parts").iterdir()) == []

    def test_of_a_network_and_of_pictures_too(self, tmp_path: Path) -> None:
        """1e-6: an actor computes with another number of threads, which changes the last bits."""
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", num_classes=2).eval()
        data, images = coco_data_set(tmp_path / "coco", 80, size=(60, 80))
        keywords: dict[str, Any] = {"model": model, "images": images, "batch_size": 32, "metrics": ["energy", "lift"]}
        local = audited(data, tmp_path / "local", **keywords).rows()
        far = audited(data, tmp_path / "far", engine="ray", cluster={"actors": 1}, **keywords).rows()
        assert len(far) > 80 and set(far["status"].to_pylist()) == {"measured"}
        for name in ("index", "place", "cls", "predicted", "layer", "region", "digest", "chance", "filled"):
            assert far[name].equals(local[name]), name
        for name in ("energy", "lift", "probability"):
            assert far[name].to_pylist() == pytest.approx(local[name].to_pylist(), abs=1e-6), name


class TestDeaths:
    def test_of_an_actor_changes_nothing(self, tmp_path: Path, cluster: Cluster) -> None:
        """It is killed in the midst of its second part, and started again."""
        data, marker = Scenes(scenes(600, hidden=0.2)), tmp_path / "died"
        model = Dying(marker, after=6).eval()
        far = audited(data, tmp_path / "far", engine="ray", cluster={"actors": 1}, model=model)
        assert marker.exists()
        local = audited(data, tmp_path / "local", model=model)
        assert far.rows().equals(local.rows())

    def test_of_a_machine_changes_nothing(self, tmp_path: Path, cluster: Cluster) -> None:
        """It is removed with one of two actors, at work on a part; the other machine has room for one actor only."""
        data, seen = Scenes(scenes(1000, hidden=0.2)), tmp_path / "seen"
        seen.mkdir()
        node = cluster.add_node(num_cpus=PROCESSORS, object_store_memory=STORE)
        removed = threading.Event()

        def remove() -> None:
            until = time.monotonic() + LONGEST
            while not (seen / node.node_id).exists() and time.monotonic() < until:
                time.sleep(0.01)
            cluster.remove_node(node, allow_graceful=False)
            removed.set()

        model = Telling(seen, seconds=0.04).eval()
        remover = threading.Thread(target=remove)
        remover.start()
        try:
            far = audited(data, tmp_path / "far", engine="ray", cluster={"actors": 2, "cpus": PROCESSORS}, model=model)
        finally:
            remover.join()
        assert removed.is_set() and (seen / node.node_id).exists()
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        assert [each["Alive"] for each in nodes if each["NodeID"] == node.node_id] == [False]
        assert far.rows().equals(audited(data, tmp_path / "local", model=model).rows())

    def test_of_whoever_asked_loses_what_was_not_kept(
        self, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another run goes on, here without a cluster, and leaves no trace of the first."""
        data, keep = Scenes(scenes(600, hidden=0.2)), Folder.keep
        kept: list[int] = []

        def keep_two(self: Folder, number: int, rows: Any) -> None:
            if len(kept) == 2:
                raise KeyboardInterrupt
            kept.append(number)
            keep(self, number, rows)

        out, ask = tmp_path / "out", {"engine": "ray", "cluster": {"actors": 1}}
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Folder, "keep", keep_two)
            audited(data, out, **ask)
        assert sorted(each.name for each in (out / "parts").iterdir()) == [
            f"part-{number:08}.parquet" for number in sorted(kept)
        ]
        assert audited(data, out).rows().equals(audited(data, tmp_path / "local").rows())
        assert list((out / "parts").iterdir()) == []


@pytest.mark.usefixtures("cluster")
class TestErrors:
    """They are those of the local engine, and not ray's."""

    def test_of_ours(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)).eval()
        with pytest.raises(TargetLayerError, match=r"^no layer of Sequential gives a grid"):
            audited(Scenes(scenes(4)), tmp_path, engine="ray", cluster={"actors": 1}, model=model)

    @pytest.mark.parametrize(
        ("keywords", "message"),
        [
            ({"actors": 0}, r"^actors is 0: give a whole number, 1 or more$"),
            ({"actors": 1.5}, r"^actors is 1.5: give a whole number"),
            ({"actors": True}, r"^actors is True: give a whole number"),
            ({"cpus": 0}, r"^cpus is 0: give how many processors each actor has, above 0$"),
            ({"gpus": -1}, r"^gpus is -1: give how many GPUs each actor has, 0 or more$"),
            ({"address": 6379}, r"^address is 6379: give a text such as '10.0.0.1:6379', or 'auto'$"),
            ({"address": "10.0.0.9:6379"}, r"^address is '10.0.0.9:6379', and ray is connected to '.*' already: leave"),
            ({"horses": 3}, r"^cluster has 'horses': it may have address, actors, cpus and gpus$"),
            (
                {"cpus": 64},
                r"^each actor is to have 64 CPU, and no machine of the cluster has that: there are 4 CPU, 0",
            ),
            ({"gpus": 1}, r"^each actor is to have 1 CPU and 1 GPU, and no machine of the cluster has that"),
        ],
    )
    def test_of_what_is_given(self, tmp_path: Path, keywords: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            audited(Scenes(scenes(4)), tmp_path, engine="ray", cluster=keywords)

    def test_that_cannot_be_sent_say_what_they_said(self) -> None:
        class Local(Exception):
            """Of a class that another process cannot find."""

        assert type(pickle.loads(packed(ValueError("two", 2)))) is ValueError
        found = pickle.loads(packed(Local("out of luck")))
        assert type(found) is RuntimeError and str(found) == "Local: out of luck"

    def test_of_a_stream(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"^a stream is gone through from its beginning, on one machine"):
            audited(iter(Scenes(scenes(4))), tmp_path, engine="ray")
