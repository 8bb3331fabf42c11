"""Array types for signatures: ``Float[Tensor, "n 3"]`` is a floating-point tensor of shape (n, 3).

jaxtyping is a development dependency: the tests install its import hook with beartype, and every annotated call is checked.
Users do not need it, so where it is missing the names below stand in and mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ImportError:

        class _Unchecked:
            """Stands in for a jaxtyping dtype: subscribing gives the array type back."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Float = Int = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "Tensor", "UInt8"]
