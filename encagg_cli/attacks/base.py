"""What every attack is: settings as typed fields, and one way to craft a round's poisoned uploads.

An attack is a dataclass: its fields are its settings, its canonical text (`lie(z=2.0)`) is how it is shown, stored and
typed. It works in two steps. `survey` looks at the whole round, in as many passes as it needs, and returns what must be
known before any column can be crafted (a scale, a direction's norm; None where every column stands by itself).
`columns` then crafts one block of columns. So a large round need not fit in memory.

Where `is_linear` says so, `mixture` gives the same uploads as linear combinations of the honest ones, without columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.attacks.scene import Columns, Knowledge, Matrix, Scene, Vector, read_columns, visit
from encagg_cli.errors import UnusableInput
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import Need

if TYPE_CHECKING:
    from encagg_cli.attacks.mixture import HonestRound, Mixture

Grade = Literal["A", "B", "C"]


class AttackNeed(Enum):
    """What a run must offer before an attack can work on it."""

    KNOWN_BENIGN = "known-benign clients"
    GLOBAL_MODEL = "the stored global model of every round"
    TRAINED_TO_HARM = "updates trained on flipped labels"


@dataclass(kw_only=True)
class Attack(ABC):
    """Base of all attacks. Subclasses are keyword-only dataclasses registered in `encagg_cli.attacks`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    grade: ClassVar[Grade]
    colluding: ClassVar[bool] = False  # its uploads of a round are made together

    def __post_init__(self) -> None:
        check_settings(self)

    def knows(self) -> Knowledge:
        """Whose honest updates `Columns.known` holds."""
        return "own"

    def requires(self) -> frozenset[AttackNeed]:
        """What the run must offer with these settings; checked before anything is read."""
        return frozenset()

    def observe(self, number: int, global_model: NDArray[np.float32]) -> None:
        """See the model from which a round starts; called for every round in order, also for those without poison.

        Only attacks that require `AttackNeed.GLOBAL_MODEL` are shown it.
        """
        return

    def survey(self, scene: Scene) -> Any:
        """What `columns` must be told about the whole round. Called once a round; may keep state for later rounds."""
        return None

    @abstractmethod
    def columns(self, columns: Columns, survey: Any) -> Matrix:
        """The poisoned uploads' columns, (m, w); the same whenever it is called with the same arguments."""

    def is_linear(self) -> bool:
        """Whether, with these settings, the uploads are nothing but their `mixture`."""
        return False

    def sketch_needs(self) -> tuple[Need, ...]:
        """What `mixture` asks of the honest round's sketch, beside the Gram matrix."""
        return ()

    def mixture(self, scene: Scene, honest: "HonestRound") -> "Mixture":
        """The round's uploads as linear combinations of honest updates. Of `scene` no columns are read."""
        raise TypeError(f"the uploads of {self.name} are no linear combinations of honest updates")


@dataclass(kw_only=True)
class Informed(Attack):
    """An attack that starts from honest updates other than the attacker's own."""

    knowledge: Knowledge = setting("all", "what it knows: all honest uploads, or the attackers' own honest updates")

    def knows(self) -> Knowledge:
        return self.knowledge


@dataclass(kw_only=True)
class Colluding(Informed):
    """An attack whose uploads of a round are made together, with noise of each attacker's own if they are told to.

    The noise makes a crowd of equal uploads look like different clients: `m_i + noise · σ ⊙ N(0, 1)`, `σ` the standard
    deviation of the known honest updates in each coordinate. A bound that the uploads keep (Min-Max's, say) is kept
    without noise.
    """

    colluding: ClassVar[bool] = True

    noise: float = setting(0.0, "each attacker's own noise, in standard deviations of the known updates", at_least=0)

    @abstractmethod
    def uploads(self, columns: Columns, survey: Any) -> Matrix:
        """The uploads' columns without noise, (m, w)."""

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        uploads = self.uploads(columns, survey)
        if self.noise == 0:
            return uploads
        return uploads + self.noise * columns.deviation * columns.normal("noise")


@dataclass(kw_only=True)
class OneVector(Colluding):
    """A colluding attack in which all attackers upload the same vector (and noise of their own)."""

    @abstractmethod
    def vector(self, columns: Columns, survey: Any) -> Vector:
        """The columns of that vector, (w,)."""

    def uploads(self, columns: Columns, survey: Any) -> Matrix:
        return np.tile(self.vector(columns, survey), (len(columns.own), 1))


@dataclass(kw_only=True)
class TrainedToHarm(Attack):
    """An attack that uploads honest training on changed labels: it needs the clients' data, or stored updates."""

    def requires(self) -> frozenset[AttackNeed]:
        return frozenset({AttackNeed.TRAINED_TO_HARM})

    @abstractmethod
    def relabel(self, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
        """The labels (samples,) to train on; raises UsageError for settings that name no such class."""

    def survey(self, scene: Scene) -> NDArray[np.intp]:
        """Rows of the alternatives that belong to the poisoning clients."""
        if scene.alternatives is None:
            raise UnusableInput(
                f"{self.name} needs updates that were trained on changed labels",
                hint="`encagg simulate` trains them; or store them as a run of their own and name it",
            )
        row = {client: index for index, client in enumerate(scene.alternatives.client_ids)}
        missing = [client for client in scene.poisoning if client not in row]
        if missing:
            raise UnusableInput(
                f"round {scene.number}, client {missing[0]}: there is no update of it trained on changed labels"
            )
        if scene.alternatives.n_parameters != scene.n_parameters:
            raise UnusableInput(
                f"round {scene.number}: updates trained on changed labels have {scene.alternatives.n_parameters} "
                f"parameters, and the round's have {scene.n_parameters}"
            )
        theirs, ours = ([(p.name, p.shape) for p in each.parameters] for each in (scene.alternatives, scene.source))
        if min(len(theirs), len(ours)) > 1 and theirs != ours:  # of a flat vector, nothing is known
            raise UnusableInput(
                f"round {scene.number}: updates trained on changed labels have other tensors, or in another order",
                hint="capture both alike: with the global model, or both without",
            )
        return np.array([row[client] for client in scene.poisoning], dtype=np.intp)

    def columns(self, columns: Columns, survey: Any) -> Matrix:
        assert columns.scene.alternatives is not None  # survey has seen to it
        values = read_columns(columns.scene.alternatives, columns.start, columns.stop)
        trained: Matrix = values[survey].astype(np.float64)
        return trained


def craft(attack: Attack, scene: Scene) -> Iterator[NDArray[np.float32]]:
    """Yield the poisoned uploads of one round, block of columns by block of columns.

    Each block is (m, w), in the order of `scene.poisoning`. Values beyond float32 become infinite, as on the wire.
    """
    survey = attack.survey(scene)
    for columns in visit(scene, attack.knows()):
        yield as_stored(attack.columns(columns, survey))


def craft_matrix(attack: Attack, scene: Scene) -> NDArray[np.float32]:
    """The poisoned uploads of one round in memory, (m, parameters)."""
    return np.concatenate(list(craft(attack, scene)), axis=1)


def as_stored(crafted: Matrix) -> NDArray[np.float32]:
    """float32, as clients upload it."""
    with np.errstate(over="ignore"):
        return crafted.astype(np.float32)
