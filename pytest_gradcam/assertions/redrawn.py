"""A copy of a model with weights drawn anew, of its head or of all of it; the model itself is not touched."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.methods import kind_of
from pytest_gradcam.cam.model import unwrap
from pytest_gradcam.cam.running import ModelLike, Options, ready
from pytest_gradcam.errors import ModelError, ModelTypeError

Stage: TypeAlias = Literal["head", "all"]
STAGES: tuple[Stage, ...] = ("head", "all")
# Kinds of methods that read a layer of the model; others choose what they read themselves, or look at none.
_OF_A_LAYER = ("gradients", "perturbation", "attention")


class Redrawn:
    """A copy of a model, whose weights can be drawn anew and put back.

    The values of each tensor change places, so that each keeps its mean, deviation and largest values: a copy computes
    in the range that the model computes in. So do the statistics of batch norms, mean and variance together.

    Attributes:
        model: the copy.
        head: the modules whose weights are the head's.
    """

    def __init__(self, model: ModelLike, inputs: Tensor, options: Options, layers: Sequence[str]) -> None:
        """Copy.

        Args:
            model: as for `explain`.
            inputs: (1, C, H, W): the order of the modules is that of its forward.
            options: how the model is called.
            layers: names of the target layers; what is called after all of them is the head. Without any, or where
                nothing after them has weights, the last module with weights is.

        Raises:
            ModelError: the model cannot be copied, or has no weights.
            ModelTypeError: it is a pair of which a part is no module.
        """
        whole: Any = model
        if isinstance(model, tuple):
            layers = ["0"]  # the features: `ready` numbers the parts
            if not all(isinstance(part, nn.Module) for part in model):
                raise ModelTypeError(
                    "a part of the pair (features, head) is a function: its weights cannot be drawn anew without "
                    "touching yours. Pass two modules, or the whole model"
                )
        else:
            whole = unwrap(model)
        try:
            with torch.inference_mode(False):  # else the copies' weights could not be drawn anew
                self.model: Any = copy.deepcopy(whole)
        except Exception as error:  # whatever a module's own __deepcopy__ raises
            raise ModelError(
                f"{type(whole).__name__} cannot be copied ({str(error).splitlines()[0] if str(error) else error!r}), "
                "and its weights are not drawn anew in place: pass a model that copy.deepcopy copies"
            ) from error
        with ready(self.model, inputs, options) as run:
            self._modules = dict(run.module.named_modules())
            self.head = _head(run.module, run.call, run.inputs, layers)
        self._kept = [(tensor, tensor.detach().clone()) for tensor in self._tensors(self._modules)]
        if not self.head:
            raise ModelError(f"{type(whole).__name__} has no weights that could be drawn anew: its maps depend on none")

    def draw(self, stage: Stage, seed: int) -> None:
        """Put all weights back, and draw those of a stage anew.

        Raises:
            ModelError: none of them changed: each of their tensors has one value only.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode(False), torch.no_grad():
            for tensor, own in self._kept:
                tensor.copy_(own)
            names = self.head if stage == "head" else list(self._modules)
            for name in names:
                self._redraw(self._modules[name], generator)
            drawn = {id(tensor) for tensor in self._tensors(names)}
            if all(torch.equal(tensor, own) for tensor, own in self._kept if id(tensor) in drawn):
                raise ModelError(
                    f"the weights of {', '.join(map(repr, names[:4]))} do not change when their values change places: "
                    "all are the same, and whether the map depends on them cannot be seen"
                )

    def _tensors(self, names: Any) -> list[Tensor]:
        found: dict[int, Tensor] = {}
        for name in names:
            module = self._modules[name]
            tensors = [*module.parameters(recurse=False), *_statistics(module)]
            found |= {id(tensor): tensor for tensor in tensors}
        return list(found.values())

    def _redraw(self, module: nn.Module, generator: torch.Generator) -> None:
        for parameter in module.parameters(recurse=False):
            own = parameter.detach().clone().flatten()
            places = torch.randperm(own.numel(), generator=generator).to(own.device)
            moved = own[places]
            if torch.equal(moved, own):  # a few values may come to lie where they were
                moved = own.roll(1)
            parameter.copy_(moved.view(parameter.shape))
        statistics = _statistics(module)
        if statistics:
            places = torch.randperm(len(statistics[0]), generator=generator).to(statistics[0].device)
            for statistic in statistics:
                statistic.copy_(statistic[places].clone())


def layers_of(model: ModelLike, options: Options, found: Sequence[str]) -> list[str]:
    """The names of the target layers, by which a copy's can be found; none where the method looks at none.

    Args:
        model: as for `explain`.
        options: how the model was explained.
        found: the layers that were read, in the order of the forward.
    """
    return [] if isinstance(model, tuple) or kind_of(options.method) not in _OF_A_LAYER else list(found)


def _statistics(module: nn.Module) -> list[Tensor]:
    if not isinstance(module, nn.modules.batchnorm._NormBase):
        return []
    return [each for each in (module.running_mean, module.running_var) if each is not None]


def _head(module: nn.Module, call: Any, inputs: Tensor, layers: Sequence[str]) -> list[str]:
    """Names of the modules with weights of their own that are called, alone or in another, after the target layers."""
    names = {id(m): name for name, m in module.named_modules()}
    started: list[str] = []
    ended: list[str] = []
    after: list[str] = []  # started after the last of the layers ended

    def start(m: nn.Module, _inputs: Any) -> None:
        started.append(names[id(m)])
        after.append(names[id(m)])

    def end(m: nn.Module, _inputs: Any, _output: Any) -> None:
        ended.append(names[id(m)])
        if names[id(m)] in layers:
            after.clear()

    handles = [handle for m in module.modules() for handle in _hooked(m, start, end)]
    try:
        with torch.no_grad():
            call(inputs.clone())
    finally:
        for handle in handles:
            handle.remove()
    weighted = [name for name, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None]
    if layers and all(layer in ended for layer in layers):
        found = [name for name in weighted if any(name == each or name.startswith(f"{each}.") for each in after)]
        if found:
            return found
    last = next((name for name in reversed(ended) if name in weighted), None)
    return weighted[-1:] if last is None else [last]


def _hooked(m: nn.Module, start: Any, end: Any) -> tuple[Any, Any]:
    return m.register_forward_pre_hook(start), m.register_forward_hook(end)
