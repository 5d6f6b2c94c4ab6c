"""Our own recipe: all layers share one budget, of bytes or cycles, of weights that are few powers of two."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...hw.arch.errors import ModelError
from .options import QuantizedRecipe
from .recipe import Knob, Progress, register, require

if TYPE_CHECKING:
    import torch

    from ..data import Dataset
    from ..frontend.graph import Graph
    from .fakequant import FakeQuantized
    from .training import Method
    from .weights import WeightQuantizer

__all__ = ["Best"]

START = 0.965
"""Share of a target that values given before training may take: training makes them dearer, by 2 to 3 %."""


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Best(QuantizedRecipe):
    """Options of the recipe ``best``; a layer may have ``terms``, ``span`` and ``bias`` of its own.

    Parameters
    ----------
    target_size : int or None
        Bytes of the whole image. Which layers' weights stay, and with which values, is found out.
    start : str
        ``"float"``: weights are taken out step by step while the network is trained. ``"ptq"``: the recipe ``ptq``
        gives all weights their values for the target, and training moves them: for networks that take long to train,
        and for rates of a bit a weight and more.
    target_cycles : int or None
        Cycles of an inference on the default accelerator, in its place: a weight costs one for each term and block of
        its output map.
    keep : float
        Share of the network's weights that stay, above 0 to 1: without a target, or through `sparse_epochs`.
    sparse_epochs : int
        With ``start = "ptq"``: epochs in which the float network loses weights before, with its batch norms. Where it
        ends, `keep`, should be near what the target leaves.
    sparse_rate : float
        Learning rate of those epochs at its peak, of stochastic gradient descent with momentum.
    terms : int
        Most powers of two of a value, 1 to 4.
    span : int
        Consecutive places of a value's powers of two, 1 to ``max_shift + 1``: with one term, the magnitudes.
    hold : bool
        With ``start = "ptq"``: a price of bits, led by the image's size, holds it while training moves the values.
        Without, the image grows by some percent in a few epochs, and by a tenth in many.
    rate : float
        How much a value's cost counts beside its squared error; 0 takes the nearest value, 1 is the price at which
        weights are taken out.
    bias : bool
        Whether layers without batch norm keep their biases; with ``start = "ptq"`` they do.
    regrow : bool
        Weights that are out are trained on while the share falls, and may come back.

    Notes
    -----
    The falling share follows Zhu and Gupta, arXiv:1710.01878, section 3; coming back, Guo, Yao and Chen,
    arXiv:1608.04493; distillation and the straight-through estimator as in ``bqnet``. See :mod:`~.allocation`.
    """

    name: ClassVar[str] = "best"
    knob: ClassVar[Knob | None] = Knob("keep", 1.0, 0.005, "log")
    of_layers: ClassVar[tuple[str, ...]] = ("terms", "span", "bias")

    start: str = "float"
    target_size: int | None = None
    target_cycles: int | None = None
    keep: float = 0.25
    sparse_epochs: int = 0
    sparse_rate: float = 0.05
    terms: int = 1
    span: int = 3
    hold: bool = True
    rate: float = 0.5
    bias: bool = True
    regrow: bool = False
    learning_rate: float = 1e-3

    def check(self, where: str, options: Mapping[str, Any]) -> None:
        """Refuse values that the device does not have, and budgets of nothing."""
        require(where, "terms", options["terms"], int, 1, 4)
        require(where, "span", options["span"], int, 1, self.max_shift + 1)
        require(where, "bias", options["bias"], bool)
        require(where, "keep", self.keep, float, 1e-6, 1)
        require(where, "rate", self.rate, float, 0, 100)
        require(where, "regrow", self.regrow, bool)
        require(where, "hold", self.hold, bool)
        for name in ("target_size", "target_cycles"):
            if getattr(self, name) is not None:
                require(where, name, getattr(self, name), int, 1, 1 << 40)
        if self.target_size is not None and self.target_cycles is not None:
            raise ModelError(f"{where}: target_size and target_cycles are two targets; leave one of them out")
        if self.start not in ("float", "ptq"):
            raise ModelError(f"{where}: start must be 'float' or 'ptq', not {self.start!r}")
        require(where, "sparse_epochs", self.sparse_epochs, int, 0, 100_000)
        require(where, "sparse_rate", self.sparse_rate, float, 0, 1e3)
        if self.sparse_epochs and self.start != "ptq":
            raise ModelError(f"{where}: sparse_epochs come before start = 'ptq'; start = 'float' takes weights out in "
                             f"epochs")
        if self.start == "ptq" and self.target_size is None:
            raise ModelError(f"{where}: start = 'ptq' needs a target_size: it spends one")

    def quantizer(self, layer: str) -> "WeightQuantizer":
        from .prices import CodeBits, PricedValue
        from .weights import FreeWeights, TermGrid

        options = self.options_of(layer)
        if self.start == "ptq":
            return FreeWeights(options["span"])
        grid = TermGrid(options["terms"], options["span"])
        return PricedValue(grid, CodeBits(grid))

    def prepared(self, model: "torch.nn.Module", graph: "Graph", data: "Dataset", *, seed: int,
                 progress: Progress | None) -> "Graph":
        """The float network without most of its weights."""
        if not self.sparse_epochs:
            return graph
        from ..frontend.capture import capture
        from .sparse import make_sparse

        if graph.left_to_host:
            raise ModelError(f"recipe {self.name}: sparse_epochs train the network itself, but "
                             f"{graph.left_to_host[0].partition(' is ')[0]} is at its end; let it return the logits")
        found = make_sparse(model, graph.output_sizes, data, self, seed=seed,
                            progress=_counted(progress, 0, self.epochs_for(len(data))))
        return capture(found, graph.image_shape)

    def train(self, network: "FakeQuantized", teacher: "torch.nn.Module", data: "Dataset", *, seed: int,
              progress: Progress | None) -> None:
        """Take weights out of all layers under the budget, then train on what is left."""
        from .allocation import GlobalBudget
        from .training import fine_tune

        if self.start == "ptq":
            method = self._assigned(network, data, seed, progress)
        else:
            method = self._budget(network)
        fine_tune(network, teacher, data, self, method, seed=seed, progress=_counted(progress, self.sparse_epochs))
        method.finish(network)
        GlobalBudget.check(network)

    def _budget(self, network: "FakeQuantized") -> "Method":
        """Weights are taken out under the budget while the network is trained."""
        from .allocation import GlobalBudget, quantizer_of
        from .prices import BlockCycles

        biases = {name: layer.layer.normalized or self.options_of(name)["bias"]
                  for name, layer in network.weighted.items()}
        cycles = self.target_cycles is not None
        if cycles:
            for layer in network.weighted.values():
                quantizer = quantizer_of(layer)
                quantizer.cost = BlockCycles(quantizer.grid, _blocks(layer.layer.out_shape))

        target = self.target_cycles if cycles else self.target_size and 8 * self.target_size
        option = next((f"{name} = {getattr(self, name)}" for name in ("target_size", "target_cycles")
                       if getattr(self, name)), f"keep = {self.keep}")
        return GlobalBudget(self.keep, option=option, target=target, measure=self._measure if target else None,
                            rate=self.rate, biases=biases, regrow=self.regrow)

    def _measure(self, network: "FakeQuantized") -> int:
        """Bits or cycles of the image of the present network."""
        from .measure import compiled

        compilation = compiled(network, self)
        return compilation.cycles if self.target_cycles is not None else 8 * compilation.size

    def _assigned(self, network: "FakeQuantized", data: "Dataset", seed: int, progress: Progress | None) -> "Method":
        """All weights get their values first, for the whole target."""
        from .heldrate import HeldRate
        from .posttraining import PostTraining
        from .ptq import PTQ
        from .training import Settled
        from .weights import TermGrid

        assert self.target_size is not None
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(QuantizedRecipe)}
        layers = {name: {option: value for option, value in options.items() if option != "bias"}
                  for name, options in self.layers.items()}
        start = PTQ(**{**shared, "layers": layers, "epochs": None}, terms=self.terms, span=self.span,
                    target_size=round(self.target_size * (1 if self.hold else START)))
        found = PostTraining(network, start, data, seed=seed, progress=None)
        found.run()
        if not self.hold:
            return Settled()
        grids = {name: TermGrid(options["terms"], options["span"])
                 for name in network.weighted for options in [self.options_of(name)]}
        return HeldRate(8 * self.target_size, self._measure, found.slope, grids)


def _counted(progress: Progress | None, before: int, after: int = 0) -> Progress | None:
    """Progress of one of two trainings, as that of both."""
    if progress is None:
        return None
    return lambda epoch, epochs, loss: progress(before + epoch, before + epochs + after, loss)


def _blocks(shape: tuple[int, int, int]) -> int:
    """Blocks of an output map, as the default accelerator computes them."""
    from ...hw.arch.config import AcceleratorConfig

    config = AcceleratorConfig()
    return -(-shape[1] // config.lanes_y) * -(-shape[2] // config.lanes_x)
