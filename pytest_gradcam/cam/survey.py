"""All layers of a model that could be read as grids, and what became of each: the search, looked at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from pytest_gradcam.cam.captured import question_of
from pytest_gradcam.cam.layers import Target
from pytest_gradcam.cam.running import Options, ready
from pytest_gradcam.cam.scores import ClassLike
from pytest_gradcam.cam.search import Judgement, Search
from pytest_gradcam.errors import TargetLayerError


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What a search saw.

    Attributes:
        judgements: of the layers, the last one first.
        chosen: the one that is taken unasked; None where there is none.
        blocks: those that `auto` reads: of tokens, one in each block.
        why_none: the error that is raised then.
    """

    judgements: tuple[Judgement, ...]
    chosen: Target | None
    why_none: str
    blocks: tuple[Target, ...] = ()


def survey(model: nn.Module, inputs: Tensor, cls: ClassLike, options: Options) -> Survey:
    """Look at the layers of a model as `explain` does, and further back.

    Args:
        model: the model.
        inputs: (1, C, H, W), model input.
        cls: class index, callable, or None for the predicted class.
        options: how to compute.

    Raises:
        GradcamError: as for `explain`, but for a model of which no layer is found.
    """
    with ready(model, inputs, options) as run:
        search = Search(run.forward, run.inputs, question_of(run, cls))
        judgements = tuple(search.judgements())
        try:
            chosen = search.chosen(judgements)
            return Survey(judgements, chosen, "", search.in_all_blocks(chosen))
        except TargetLayerError as error:
            return Survey(judgements, None, str(error))
