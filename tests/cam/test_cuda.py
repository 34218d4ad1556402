"""On a CUDA device: taken by default, with the maps of the CPU, and everything put back where it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_gradcam import GradcamError, ModelError, explain, explain_batch, explain_classes
from tests.models import apart, calibrated, picture, small

pytestmark = [
    pytest.mark.cuda,
    # A first call may say that a library chose another kernel; that is no business of these tests.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
engines = pytest.mark.parametrize("engine", ["hooks", "split"])


@pytest.fixture(autouse=True)
def _float32_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default cuDNN's convolutions keep ten bits of a float32 (TF32): maps would agree to some thousandths only."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def storages(model: nn.Module) -> dict[str, tuple[int, int, str]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(tensor), tensor.data_ptr(), str(tensor.device)) for name, tensor in tensors}


@engines
class TestAModelOnTheCpu:
    def test_runs_on_cuda_by_default_and_comes_back(self, engine: str) -> None:
        model = small()
        before = storages(model)
        got = explain(model, picture(32, 32), 1, engine=engine)
        assert got.device.startswith("cuda")
        assert storages(model) == before
        assert all(p.grad is None for p in model.parameters())

    @pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda")])
    def test_goes_where_it_is_told(self, device: Any, engine: str) -> None:
        assert explain(small(), picture(32, 32), 1, device=device, engine=engine).device == "cuda:0"
        assert explain(small(), picture(32, 32), 1, device="cpu", engine=engine).device == "cpu"

    def test_has_the_map_of_the_cpu(self, engine: str) -> None:
        import timm

        x = picture(96, 96, count=3)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = calibrated(timm.create_model("resnet18", pretrained=False, num_classes=10), x)
        for method in ("grad-cam", "hirescam"):
            there = explain_batch(model, x, [1, 2, 3], engine=engine, method=method)
            here = explain_batch(model, x, [1, 2, 3], engine=engine, method=method, device="cpu")
            for a, b in zip(there, here, strict=True):
                assert (a.device, b.device) == ("cuda:0", "cpu")
                assert apart(a.raw, b.raw) <= 1e-3
                assert apart(a.cam, b.cam) <= 1e-3
                assert a.score == pytest.approx(b.score, rel=1e-3)
        classes = explain_classes(model, x[:1], [1, 2], engine=engine)
        assert apart(classes[0].raw, explain(model, x[:1], 1, engine=engine).raw) <= 1e-3

    def test_comes_back_from_an_error(self, engine: str) -> None:
        model = small()
        before = storages(model)
        with pytest.raises(GradcamError):
            explain(model, picture(32, 32), 99, engine=engine)
        assert storages(model) == before

    def test_keeps_a_graph_of_the_users(self, engine: str) -> None:
        model, twin, x = small(seed=7), small(seed=7), picture(32, 32)
        loss = model(x).square().sum()
        explain(model, x, 1, engine=engine)
        loss.backward()
        twin(x).square().sum().backward()
        for a, b in zip(model.parameters(), twin.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad)

    def test_that_writes_a_parameter_is_refused_there_too(self, engine: str) -> None:
        class Writes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = small()

            def forward(self, x: torch.Tensor) -> Any:
                bias: Any = self.net.get_submodule("fc").bias
                bias.data = bias.data.clone()
                return self.net(x)

        model = Writes()
        before = storages(model)
        with pytest.raises(ModelError):
            explain(model, picture(32, 32), 1, engine=engine)
        assert storages(model) == before


@engines
class TestAModelOnCuda:
    def test_stays_there_and_takes_inputs_from_anywhere(self, engine: str) -> None:
        model = small().cuda()
        before = storages(model)
        for x in (picture(32, 32), picture(32, 32).cuda()):
            got = explain(model, x, 1, engine=engine)
            assert got.device == "cuda:0"
            assert apart(got.raw, explain(small(), x.cpu(), 1, device="cpu").raw) <= 1e-3
        assert storages(model) == before

    def test_can_be_explained_on_the_cpu(self, engine: str) -> None:
        model = small().cuda()
        before = storages(model)
        got = explain(model, picture(32, 32).cuda(), 1, device="cpu", engine=engine)
        assert got.device == "cpu"
        assert apart(got.raw, explain(small(), picture(32, 32), 1, device="cpu").raw) <= 1e-6
        assert storages(model) == before

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_in_half_precision_and_inside_autocast(self, dtype: torch.dtype, engine: str) -> None:
        exact = explain(small(), picture(32, 32), 1, device="cpu")
        half = explain(small().cuda().to(dtype), picture(32, 32), 1, engine=engine)
        with torch.autocast("cuda", dtype):
            cast = explain(small().cuda(), picture(32, 32), 1, engine=engine)
        assert apart(half.raw, exact.raw) <= 0.05
        assert apart(cast.raw, exact.raw) <= 0.05


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = small()

    def forward(self, x: torch.Tensor) -> Any:
        return self.net(x + 1e-9 * torch.rand_like(x))


@engines
def test_the_random_state_of_the_device_is_put_back(engine: str) -> None:
    before = torch.cuda.get_rng_state()
    with pytest.raises(ModelError, match=r"draws random numbers \(torch\.cuda\)|cannot be cut"):
        explain(Noisy(), picture(32, 32), 1, engine=engine)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    explain(small(), picture(32, 32), 1, engine=engine)
    assert torch.equal(torch.cuda.get_rng_state(), before)
