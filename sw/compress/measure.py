"""What a network that is being compressed would take: its image, compiled."""

from typing import TYPE_CHECKING

from ...hw.arch.config import AcceleratorConfig
from .lower import lower
from .options import QuantizedRecipe
from .recipe import Recipe

if TYPE_CHECKING:
    from ..compiler.compile import Compilation
    from .fakequant import FakeQuantized

__all__ = ["MEMORIES", "compiled", "roomy"]

MEMORIES = {"weight_depth": 1 << 22, "act_depth": 1 << 16, "row_depth": 1 << 16, "positions": 512}
"""Of an accelerator that is only asked how large an image is and how long it takes."""


def roomy(recipe: Recipe) -> AcceleratorConfig:
    """The default accelerator with large memories and a recipe's arithmetic."""
    arithmetic = {name: getattr(recipe, name) for name in ("guard_bits", "max_shift") if hasattr(recipe, name)}
    return AcceleratorConfig().replace(**MEMORIES, **arithmetic)


def compiled(network: "FakeQuantized", recipe: QuantizedRecipe) -> "Compilation":
    """Compile a calibrated network for the default accelerator with memories that hold it.

    Raises
    ------
    CapacityError, OverflowProofError
        If there is no such accelerator, or an accumulator could overflow.
    """
    from ..compiler.compile import compile_detailed

    return compile_detailed(lower(network, network.graph, recipe, {}), roomy(recipe))
