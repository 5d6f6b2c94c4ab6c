"""What a network that is being compressed would take: its image, compiled."""

from typing import TYPE_CHECKING

from ...hw.arch.config import AcceleratorConfig
from .lower import lower
from .options import QuantizedRecipe

if TYPE_CHECKING:
    from ..compiler.compile import Compilation
    from .fakequant import FakeQuantized

__all__ = ["compiled"]


def compiled(network: "FakeQuantized", recipe: QuantizedRecipe) -> "Compilation":
    """Compile a calibrated network for the default accelerator with memories that hold it.

    Raises
    ------
    CapacityError, OverflowProofError
        If there is no such accelerator, or an accumulator could overflow.
    """
    from ..compiler.compile import compile_detailed

    config = AcceleratorConfig(weight_depth=1 << 22, act_depth=1 << 16, row_depth=1 << 16, positions=512,
                               guard_bits=recipe.guard_bits, max_shift=recipe.max_shift)
    return compile_detailed(lower(network, network.graph, recipe, {}), config)
