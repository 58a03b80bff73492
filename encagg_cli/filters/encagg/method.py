"""EnCAgg's round, stage by stage, and its verdicts (arXiv 2605.22506, sections III-IV)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from encagg_cli.errors import UsageError
from encagg_cli.filters.base import Context, Decision, Filter, Grade, Requirement, suspicion
from encagg_cli.filters.encagg.clustering import NOISE, Labels, density_clusters
from encagg_cli.filters.encagg.projection import Points, Projection, distances, project, resolution
from encagg_cli.filters.encagg.radius import Radius, radius_from_known
from encagg_cli.filters.encagg.selection import Clustered, Mask, Selection, select
from encagg_cli.filters.verdict import REJECT_ABOVE, equal_weights
from encagg_cli.settings import check_settings, setting
from encagg_cli.sketch import GramNeed, Need, RoundSketch

if TYPE_CHECKING:
    from encagg_cli.filters.encagg.generator import Generator


@dataclass(frozen=True)
class FirstPass:
    """Projection, radius, clustering and selection, over all `n` uploads."""

    points: Points
    distances: NDArray[np.float64]
    radius: Radius
    labels: Labels
    selection: Selection

    @property
    def retained(self) -> Mask:
        """G¹: the benign cluster's members within reach, and all noise."""
        retained: Mask = self.selection.members | (self.labels == NOISE)
        return retained


@dataclass(frozen=True)
class SecondPass:
    """The second clustering: `m` retained uploads (`rows`), their points, and after them the pseudo-gradients.

    `fallback`: no benign cluster was found. `generator` is what the trace tells of its step.
    """

    rows: NDArray[np.intp]
    points: Points
    pseudo: Points
    radius: Radius
    labels: Labels
    selection: Selection
    fallback: bool
    generator: Mapping[str, NDArray[Any]]


@dataclass(kw_only=True)
class EnCAgg(Filter):
    """Cluster the uploads on their principal plane around the known-benign, then once more with pseudo-gradients.

    The paper's algorithm with the paper's settings; what the paper leaves open is a setting here. First, DBSCAN on the
    two principal axes of the updates; its radius ε is a low quantile of the distances between known-benign uploads. The
    cluster that holds the known-benign uploads is the benign one; its members stay where one of those lies within
    `γε`, and noise stays for now. Then a small generator, trained round after round, places pseudo-gradients around
    what is left, and all of it is clustered again: who is in the benign cluster now is accepted. The aggregate is the
    plain mean of the accepted uploads. It takes two known-benign clients in a round, and does better with more.

    Accepted: `kept` (in the benign cluster twice), `recovered` (noise at first, in the benign cluster of the second
    clustering), `trusted` (a known-benign client, where no benign cluster was found). Rejected: `other-cluster`,
    `out-of-reach` (in the benign cluster, farther than `γε` from every known-benign upload), `noise` (after the second
    clustering), `no-radius` (fewer than two known-benign uploads, so nothing can be told).
    """

    name: ClassVar[str] = "encagg"
    summary: ClassVar[str] = "density clustering on the principal plane around the known-benign, with pseudo-gradients"
    source: ClassVar[str] = "Zhang et al., EnCAgg, arXiv 2605.22506v1, 2026"
    grade: ClassVar[Grade] = "A"
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.KNOWN_BENIGN})
    least_known_benign: ClassVar[int] = 2  # a distance takes two

    min_samples: int = setting(5, "neighbours that make a core point, itself among them", at_least=1)
    r: float = setting(0.2, "quantile of known-benign distances that is the radius ε", above=0, at_most=1)
    gamma: float = setting(3.0, "reach: members lie within γε of a known-benign upload", at_least=0)
    n_gen: int = setting(100, "pseudo-gradients a round", at_least=1)
    projection: Projection = setting("pca", "none: cluster in the whole space (ablation)")
    generator: Literal["on", "off"] = setting("on", "off: cluster again without pseudo-gradients (ablation)")
    second_radius: Literal["reuse", "recompute"] = setting("reuse", "ε of the second clustering")
    lone_cluster: Literal["benign", "other"] = setting("benign", "what the only cluster is, where all roots are noise")
    placement: float = setting(1.0, "pseudo-gradients lie in a box of this many times the benign extent", above=0)
    noise_dim: int = setting(8, "the generator's noise", at_least=1)
    width: int = setting(32, "the generator's layers", at_least=1)
    learning_rate: float = setting(0.003, "of the generator (Adam)", at_least=0)
    w0: float = setting(1.0, "cross-entropy weight of pseudo-gradients outside", above=0)
    w1: float = setting(2.0, "cross-entropy weight of pseudo-gradients inside; above w0", above=0)
    tau: float = setting(0.5, "least spread of pseudo-gradients on each axis, in ε", at_least=0)
    rho: float = setting(0.5, "least distance between pseudo-gradients, in ε", at_least=0)
    alpha: float = setting(1.0, "weight of the direction loss", at_least=0)
    beta: float = setting(1.0, "weight of the dispersion loss", at_least=0)
    seed: int = setting(0, "of the generator's weights and noise", at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.w1 > self.w0:
            raise UsageError(f"encagg.w1 must be above encagg.w0, not {self.w1} and {self.w0}")
        self._generator: Generator | None = None

    def needs(self) -> tuple[Need, ...]:
        return (GramNeed(),)

    def judge(self, sketch: RoundSketch, context: Context) -> Decision:
        deviations = sketch.gram.deviations
        known = context.trusted
        points = project(deviations, self.projection)
        if known.sum() < 2:
            return _without_radius(sketch.clients, known, points)
        first = self._first_pass(points, known, resolution(deviations, known))
        second = self._second_pass(deviations, first, known)
        return _decision(sketch.clients, known, first, second)

    def _first_pass(self, points: Points, known: Mask, at_least: float) -> FirstPass:
        between = distances(points)
        radius = radius_from_known(between, known, self.r, at_least)
        labels = density_clusters(between, radius, self.min_samples)
        clustered = Clustered(points, labels, np.ones(len(points), dtype=bool), known, np.array(radius.roots))
        selection = select(clustered, radius, self.gamma, lone_is_benign=self.lone_cluster == "benign")
        return FirstPass(points, between, radius, labels, selection)

    def _second_pass(self, deviations: NDArray[np.float64], first: FirstPass, known: Mask) -> SecondPass:
        """Project what was retained, add pseudo-gradients, cluster again, train the generator on what came of it."""
        rows = np.flatnonzero(first.retained)
        m = len(rows)
        retained = deviations[np.ix_(rows, rows)]
        points = project(retained, self.projection)
        radius, roots = self._second_radius(retained, points, known[rows], rows, first.radius)
        members = points[first.selection.members[rows]]
        centre = (members if len(members) else points[known[rows]]).mean(axis=0)
        pseudo = np.zeros((0, points.shape[1]))
        generator = self._ready_generator() if self.generator == "on" else None
        if generator is not None:
            proposal = generator.propose()
            extent = self._extent(members, centre, radius)
            pseudo = np.tile(centre, (self.n_gen, 1))
            pseudo[:, :2] += radius.epsilon * extent * proposal.points
        everything = np.vstack([points, pseudo])
        labels = density_clusters(distances(everything), radius, self.min_samples)
        uploads = np.arange(len(everything)) < m
        known_here = np.append(known[rows], np.zeros(len(pseudo), dtype=bool))
        selection = select(
            Clustered(everything, labels, uploads, known_here, roots), radius, self.gamma, lone_is_benign=False
        )
        fallback = selection.label == NOISE or not selection.members.any()
        trace: dict[str, NDArray[Any]] = {}
        if generator is not None:
            inside = (labels[m:] == selection.label) & (not fallback)
            losses = generator.learn(proposal, inside, extent)
            trace = {"pseudo_inside": inside, "confidence": proposal.confidence, "losses": losses.values()}
        return SecondPass(rows, points, pseudo, radius, labels, selection, fallback, trace)

    def _second_radius(
        self, retained: NDArray[np.float64], points: Points, known: Mask, rows: NDArray[np.intp], first: Radius
    ) -> tuple[Radius, NDArray[np.intp]]:
        """The radius of the second clustering, and the rows of the roots among the retained uploads."""
        if self.second_radius == "recompute" and known.sum() >= 2:
            radius = radius_from_known(distances(points), known, self.r, resolution(retained, known))
            return radius, np.array(radius.roots)
        return first, np.flatnonzero(np.isin(rows, first.roots))

    def _extent(self, members: Points, centre: NDArray[np.float64], radius: Radius) -> NDArray[np.float64]:
        """How far pseudo-gradients are placed from the benign centre on either axis, in ε, (2,)."""
        farthest = np.abs(members - centre)[:, :2].max(axis=0, initial=0.0)
        unit = radius.epsilon if radius.epsilon > 0 else 1.0
        extent: NDArray[np.float64] = self.placement * (1.0 + farthest / unit)
        return extent

    def _ready_generator(self) -> "Generator":
        if self._generator is None:
            self._generator = self._new_generator()
        return self._generator

    def _new_generator(self) -> "Generator":
        from encagg_cli.filters.encagg.generator import Generator, GeneratorSettings  # loads torch

        return Generator(
            GeneratorSettings(**{spec.name: getattr(self, spec.name) for spec in fields(GeneratorSettings)})
        )

    def state_dict(self) -> dict[str, Any]:
        return {} if self._generator is None else self._generator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state and self.generator == "off":
            raise UsageError("encagg(generator=off) keeps no state, but was given one")
        restored = self._new_generator() if state else None
        if restored is not None:
            restored.load_state_dict(state)
        self._generator = restored


def _decision(clients: tuple[str, ...], known: Mask, first: FirstPass, second: SecondPass) -> Decision:
    n, m = len(clients), len(second.rows)
    accepted = np.zeros(n, dtype=bool)
    if second.fallback:
        accepted |= known
    else:
        accepted[second.rows] = second.selection.members[:m]
    strangeness = _strangeness(first, accepted)
    return Decision(
        clients=clients,
        accepted=accepted,
        score=suspicion(accepted, strangeness),
        reason=_reasons(accepted, first, second),
        threshold=REJECT_ABOVE,
        weight=equal_weights(accepted),
        statistic=strangeness,
        cluster=first.labels,
        plane=first.points[:, :2],
        trace={
            "radius": np.array(first.radius.epsilon),
            "roots": np.array([clients[row] for row in first.radius.roots]),
            "second_clients": np.array([clients[row] for row in second.rows]),
            "second_plane": second.points[:, :2],
            "second_cluster": second.labels[:m],
            "second_radius": np.array(second.radius.epsilon),
            "pseudo": second.pseudo[:, :2],
            **second.generator,
        },
    )


def _reasons(accepted: Mask, first: FirstPass, second: SecondPass) -> tuple[str, ...]:
    reasons = np.full(len(accepted), "other-cluster", dtype=object)
    reasons[first.selection.beyond] = "out-of-reach"
    m = len(second.rows)
    labels = second.labels[:m]
    last = np.where(labels == NOISE, "noise", "other-cluster").astype(object)
    if not second.fallback:
        last[second.selection.beyond[:m]] = "out-of-reach"
    reasons[second.rows] = last
    reasons[accepted] = "trusted" if second.fallback else "kept"
    if not second.fallback:
        reasons[accepted & (first.labels == NOISE)] = "recovered"
    return tuple(reasons)


def _strangeness(first: FirstPass, accepted: Mask) -> NDArray[np.float64]:
    """Distance on the first plane to the nearest other accepted upload, in ε; (n,), infinite where ε is 0."""
    between = first.distances.copy()
    np.fill_diagonal(between, np.inf)
    nearest = between[:, accepted].min(axis=1)
    nearest[np.isinf(nearest)] = 0.0  # the only accepted upload
    epsilon = first.radius.epsilon
    if epsilon > 0:
        return np.asarray(nearest / epsilon)
    return np.where(nearest > 0, np.inf, 0.0)


def _without_radius(clients: tuple[str, ...], known: Mask, points: Points) -> Decision:
    """Fewer than two known-benign uploads: nothing can be told, so only they are trusted."""
    n = len(clients)
    return Decision(
        clients=clients,
        accepted=known.copy(),
        score=suspicion(known, np.zeros(n)),
        reason=tuple("trusted" if trusted else "no-radius" for trusted in known),
        threshold=REJECT_ABOVE,
        weight=equal_weights(known),
        cluster=np.full(n, NOISE, dtype=np.int32),
        plane=points[:, :2],
    )
