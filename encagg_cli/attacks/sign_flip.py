"""Sign flip: each attacker uploads its own honest update, reversed."""

from dataclasses import dataclass
from typing import Any, ClassVar

from encagg_cli.attacks.base import Attack, Grade
from encagg_cli.attacks.scene import Columns, Matrix
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class SignFlip(Attack):
    """Attacker `i` uploads `-scale · g_i`, where `g_i` is the honest update that it trained.

    ByzFL's attack of this name sends the reversed mean of the honest updates instead: that is `ipm(epsilon=1.0)`.
    """

    name: ClassVar[str] = "sign-flip"
    summary: ClassVar[str] = "each attacker's own honest update, reversed"
    source: ClassVar[str] = "Li et al., RSA, AAAI 2019"
    grade: ClassVar[Grade] = "A"

    scale: float = setting(1.0, "factor on the reversed update", above=0)

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        return -self.scale * columns.own
