"""Row 7 of the CAM facts: what ablating a channel does to a score that reads the pooled grid linearly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from pytest_gradcam.cam import perturbed
from pytest_gradcam.cam.running import Options, ready
from pytest_gradcam.small_models import SmallNet
from pytest_gradcam.strategies import SmallModel, model_inputs, small_models
from tests.properties.oracle import TARGET, Array, counterexample, first_weights, some, term_size

SIZE = (8, 8)
X = model_inputs(batch=1, size=SIZE)
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-5), (torch.float64, 1e-10)])


def is_row_7(net: SmallNet, x: Tensor, cls: int, tolerance: float) -> bool:
    """Ablation-CAM = Σ_k (w_k · mean A_k) A_k, as a share of what the score's and the map's terms add up to."""
    with torch.no_grad():
        a = net.stages(x)[0].double()
    weights = first_weights(net)[cls].detach().double().view(len(a), -1).mean(dim=1)
    expected = torch.einsum("k,kij->ij", weights * a.mean(dim=(1, 2)), a).numpy()
    apart = abs(ablation_cam(net, x, cls) - expected).max()
    return bool(apart <= tolerance * (term_size(net, x) * float(a.sum(dim=0).max()) + 1e-30))


def ablation_cam(net: SmallNet, x: Tensor, cls: int) -> Array:
    """(h, w), before it is stored in float32."""
    with ready(net, x, Options(method="ablation-cam", layer=TARGET, device="cpu")) as run:
        raw: Array = perturbed.of_image(run, [cls]).raws[0]
    return raw


@dtypes
@some
@given(small_models(size=SIZE, head="gap-linear"), X)
def test_a_score_falls_by_weight_times_mean_activation(
    dtype: torch.dtype, tolerance: float, model: SmallModel, x: Tensor
) -> None:
    """Row 7, GAP+linear."""
    net = model.build().to(dtype)
    for cls in range(model.classes):
        assert is_row_7(net, x.to(dtype), cls, tolerance)


def test_it_does_not_where_the_head_knows_places() -> None:
    """Negative control: flatten + linear."""

    def differs(drawn: tuple[SmallModel, Tensor]) -> bool:
        return not is_row_7(drawn[0].build().double(), drawn[1].double(), 0, 1e-4)

    counterexample(st.tuples(small_models(size=SIZE, head="flatten-linear"), X), differs)
