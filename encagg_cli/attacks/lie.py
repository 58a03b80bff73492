"""A Little Is Enough: stay within the honest clients' own spread, all in the same direction."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from encagg_cli.attacks.base import Grade, OneVector
from encagg_cli.attacks.scene import Columns, Scene, Vector
from encagg_cli.errors import UnusableInput
from encagg_cli.settings import setting


def published_z(n: int, f: int) -> float:
    """The paper's `z`: the share of honest clients that `s = ⌊n/2 + 1⌋ - f` supporters leave, as a normal quantile.

    `z = Φ⁻¹((n - f - s) / (n - f))`. Raises UnusableInput where that share is not in (0, 1), which is so for a
    majority of attackers.
    """
    from scipy.stats import norm

    supporters = n // 2 + 1 - f
    share = (n - f - supporters) / (n - f)
    if not 0 < share < 1:
        raise UnusableInput(
            f"LIE's formula for z is undefined with {f} attackers among {n} clients (a share of {share:.3f})",
            hint="state z itself: lie(z=1.5)",
        )
    return float(norm.ppf(share))


@dataclass(kw_only=True)
class Lie(OneVector):
    """All attackers upload `μ - z·σ`, mean and standard deviation of the known honest updates in each coordinate.

    The paper derives `z` from the numbers of clients and attackers; its formula is `z=formula` here, and is refused
    where it is undefined. Some public code adds `z·σ` instead of subtracting it: a negative z does that.
    """

    name: ClassVar[str] = "lie"
    summary: ClassVar[str] = "the honest mean, moved by z standard deviations in every coordinate"
    source: ClassVar[str] = "Baruch et al., A Little Is Enough, NeurIPS 2019"
    grade: ClassVar[Grade] = "A"

    z: float | Literal["formula"] = setting(1.5, "how many standard deviations; formula: the paper's own")

    def survey(self, scene: Scene) -> float:
        scene.require_known(self.knowledge, 2, self.name)
        if self.z == "formula":
            return published_z(len(scene.source.client_ids), scene.attackers)
        return float(self.z)

    def vector(self, columns: Columns, survey: Any) -> Vector:
        return columns.mean - float(survey) * columns.deviation
