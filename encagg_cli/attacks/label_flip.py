"""Label flip: honest training on labels that were changed."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.base import Grade, TrainedToHarm
from encagg_cli.errors import UsageError
from encagg_cli.settings import setting


@dataclass(kw_only=True)
class LabelFlip(TrainedToHarm):
    """Attackers train as told, on labels changed by `mapping`.

    "reverse": `y → C - 1 - y`; "next": `y → y + 1 mod C`; "pair": class `from_class` becomes `to_class` and all others
    stay (Tolpegin et al.).
    """

    name: ClassVar[str] = "label-flip"
    summary: ClassVar[str] = "honest training on changed labels"
    source: ClassVar[str] = "Tolpegin et al., Data Poisoning Attacks Against Federated Learning, ESORICS 2020"
    grade: ClassVar[Grade] = "A"

    mapping: Literal["reverse", "next", "pair"] = setting("reverse", "how labels are changed")
    from_class: int = setting(0, "the class to change, for mapping=pair", at_least=0)
    to_class: int = setting(2, "what it is changed to, for mapping=pair", at_least=0)

    def relabel(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        if self.mapping == "reverse":
            return classes - 1 - labels
        if self.mapping == "next":
            return (labels + 1) % classes
        if max(self.from_class, self.to_class) >= classes:
            raise UsageError(f"label-flip names class {max(self.from_class, self.to_class)}, and there are {classes}")
        return np.where(labels == self.from_class, self.to_class, labels)
