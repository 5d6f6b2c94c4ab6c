"""The network as it is trained."""

from collections import Counter
from collections.abc import Callable, Generator

import torch
from torch import Tensor, nn

from ..frontend.graph import INPUT, FloatConcat, FloatLayer, Graph
from .modules import AffineLayer, ConvLayer, PoolLayer
from .options import QuantizedRecipe
from .quantizers import ActivationQuantizer

__all__ = ["AffineLayer", "ConvLayer", "FakeQuantized", "PoolLayer", "QuantizedLayer"]

PIXEL_EXPONENT = -8
"""Networks are fed pixels divided by 256."""
QuantizedLayer = ConvLayer | AffineLayer | PoolLayer
Visitor = Callable[[QuantizedLayer, list[Tensor]], None]


class FakeQuantized(nn.Module):
    """Quantized layers in the structure of a graph.

    Parameters
    ----------
    graph : Graph
        The float network.
    recipe : QuantizedRecipe
        The options.
    free : bool
        Weights stay as they are, without the recipe's quantizers.

    Attributes
    ----------
    quantizers : dict of ActivationQuantizer
        The format of each tensor, by its name in the graph; a concatenation's is that of its first part.
    """

    def __init__(self, graph: Graph, recipe: QuantizedRecipe, *, free: bool = False) -> None:
        super().__init__()
        self.graph, self.input_shape = graph, graph.input_shape
        bits, signed = recipe.act_bits, graph.signed
        self.input = ActivationQuantizer(bits, signed=False)
        self.input.exponent = PIXEL_EXPONENT + 8 - bits
        self.quantizers = {INPUT: self.input}
        self._unrounded: set[str] = set()
        layers: list[QuantizedLayer] = []
        made: QuantizedLayer
        for step in graph.steps:
            if isinstance(step, FloatConcat):
                self.quantizers[step.name] = self.quantizers[step.parts[0]]
                continue
            raw = recipe.raw_output and step is graph.layers[-1] and not step.clamp.active
            if step.affine:
                made = AffineLayer(step, recipe, signed[step.name])
            elif step.op == "conv":
                made = ConvLayer(step, recipe, raw, signed[step.name], free)
            else:
                made = PoolLayer(step, self.quantizers[step.source], _rounds(step, graph))
                self._unrounded |= {step.source} if made.rounds else set()
            layers.append(made)
            self.quantizers[step.name] = made.output
        self.layers = nn.ModuleList(layers)
        self._remaining = Counter(source for step in graph.steps
                                  for source in (step.parts if isinstance(step, FloatConcat) else step.sources))

    @property
    def chain(self) -> list[QuantizedLayer]:
        """The layers in order."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def weighted(self) -> dict[str, ConvLayer]:
        """The layers with weights that are trained, in order, by module path."""
        return {layer.layer.name: layer for layer in self.chain if isinstance(layer, ConvLayer)}

    @property
    def coarse(self) -> bool:
        """Whether convolutions are :mod:`~.coarse`, where they can be."""
        return any(layer.coarse for layer in self.weighted.values())

    @coarse.setter
    def coarse(self, coarse: bool) -> None:
        for layer in self.weighted.values():
            layer.coarse = coarse

    @property
    def alike(self) -> list[list[ConvLayer | AffineLayer]]:
        """Layers whose outputs must have one scale, because they are joined."""
        groups: list[set[str]] = []
        for concat in self.graph.concats:
            names = {concat.name, *map(self._scaled_by, concat.parts)}
            names.update(*(group for group in groups if group & names))
            groups = [group for group in groups if not group & names] + [names]
        return [[layer for layer in self.chain if not isinstance(layer, PoolLayer) and layer.layer.name in group]
                for group in groups]

    def _scaled_by(self, tensor: str) -> str:
        """The tensor whose scale this one has: itself, but for poolings."""
        ops = {layer.name: layer for layer in self.graph.layers if layer.op != "conv"}
        while tensor in ops:
            tensor = ops[tensor].source
        return tensor

    def forward(self, images: Tensor) -> Tensor:
        """Real-valued outputs (N, values) of real-valued images (N, C, H, W)."""
        return self.run(images).flatten(1)

    def run(self, images: Tensor, visit: Visitor | None = None) -> Tensor:
        """Run the layers; before each one, `visit` is called with it and the tensors that it takes."""
        walk = self.walk(images)
        while True:
            try:
                layer, inputs = next(walk)
            except StopIteration as end:
                result: Tensor = end.value
                return result
            if visit is not None:
                visit(layer, inputs)

    def walk(self, images: Tensor) -> Generator[tuple[QuantizedLayer, list[Tensor]], None, Tensor]:
        """Run the layers; each one, before it runs, with the tensors that it takes. Returns what the last one makes."""
        tensors = {INPUT: self.input(images).reshape(-1, *self.input_shape)}
        remaining = self._remaining.copy()
        layers = iter(self.chain)

        def take(name: str) -> Tensor:
            remaining[name] -= 1
            return tensors[name] if remaining[name] else tensors.pop(name)

        for step in self.graph.steps:
            if isinstance(step, FloatConcat):
                tensors[step.name] = torch.cat([take(part) for part in step.parts], dim=1)
                continue
            layer, (x, *residuals) = next(layers), [take(source) for source in step.sources]
            inputs = [self.reshape(layer, x), *residuals]
            if not isinstance(layer, PoolLayer):
                layer.in_exponent, *exponents = (self.quantizers[source].exponent for source in step.sources)
                layer.residual_exponents = tuple(exponents)
            yield layer, inputs
            run = layer.accumulate if isinstance(layer, ConvLayer) and step.name in self._unrounded else layer
            tensors[step.name] = run(*inputs)
        return tensors[self.graph.layers[-1].name]

    def plain(self) -> None:
        """Let every convolution round and clamp its own output, which a max pooling may do for it otherwise."""
        self._unrounded.clear()
        for layer in self.chain:
            if isinstance(layer, PoolLayer):
                layer.rounds = False

    @staticmethod
    def reshape(layer: QuantizedLayer, x: Tensor) -> Tensor:
        """The shape that a layer takes: linear layers after pooling to 1 x 1 may see it either way."""
        return x.reshape(-1, *layer.layer.in_shape)


def _rounds(layer: FloatLayer, graph: Graph) -> bool:
    """Whether a max pooling rounds what a convolution makes, because nothing else reads it."""
    return (layer.op == "maxpool" and not layer.clamp.active and len(graph.readers(layer.source)) == 1
            and any(other.name == layer.source and other.op == "conv" and not other.affine for other in graph.layers))
