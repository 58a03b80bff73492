"""The sketch of a round whose uploads are known linear combinations of another round's: nothing is read.

Most figures of a sketch are linear or bilinear in the updates, so they follow from those of the other round and the
weights. What counts single values (ranks, signs, magnitudes) does not.
"""

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encagg_cli.sketch.compute import RoundSketch, make_plan
from encagg_cli.sketch.directions import GlobalModelNeed, LastStepNeed, RootGradientNeed, VectorProducts
from encagg_cli.sketch.gram import Gram, Matrix, Vector
from encagg_cli.sketch.needs import GramNeed, Header, Need
from encagg_cli.sketch.projection import Projected, ProjectionNeed
from encagg_cli.sketch.source import ColumnSource
from encagg_cli.sketch.tensors import OutputColumnsNeed, OutputLayer, OutputRowGramNeed, TensorGramNeed


@dataclass(frozen=True)
class Mix:
    """Which combination of `n` clients' updates each of `m` uploads is.

    weights  (k, n) the combinations that differ
    place    (m,)   which of them each upload is: equal uploads have exactly equal figures
    header   of the mixed round, aligned with the uploads
    """

    weights: Matrix
    place: NDArray[np.intp]
    header: Header

    @classmethod
    def of(cls, weights: Matrix, header: Header) -> "Mix":
        distinct, place = np.unique(weights, axis=0, return_inverse=True)
        return cls(distinct, place.reshape(-1), header)

    @property
    def reference(self) -> int:
        """The combination that is the mixed round's reference row."""
        return int(self.place[self.header.reference])

    @property
    def relative(self) -> Matrix:
        """(k, n) weights of the combinations less the reference row."""
        relative: Matrix = self.weights - self.weights[self.reference]
        return relative

    @property
    def beyond(self) -> Vector:
        """(k,) how many times the other round's reference row `r` is in a combination less the reference row.

        A combination of updates is the combination of their deviations from `r`, and `r` as often as its weights say.
        """
        sums = self.weights.sum(axis=1)
        beyond: Vector = sums - sums[self.reference]
        return beyond


def can_mix(need: Need) -> bool:
    """Whether a need's figure follows from that of the other round."""
    return mixed.dispatch(type(need)) is not mixed.dispatch(object)


def mixed_norms(gram: Gram, weights: Matrix) -> Vector:
    """(m,) norms of the combinations `weights` (m, n) of the updates; a single update's is as it was measured."""
    distinct, place = np.unique(weights, axis=0, return_inverse=True)
    squares = ((distinct @ gram.inner) * distinct).sum(axis=1)
    lone = np.count_nonzero(distinct, axis=1) == 1
    norms = np.where(lone, np.abs(distinct) @ gram.norms, np.sqrt(np.maximum(squares, 0.0)))
    return norms[place.reshape(-1)]


def mix(sketch: RoundSketch, source: ColumnSource, weights: Matrix) -> RoundSketch:
    """The sketch of `source`, whose finite uploads, in id order, are `weights` (m, n) times the updates of `sketch`.

    Only what is known of `source` beside its columns is asked for; its norms must be `mixed_norms`. Figures agree with
    those of the columns up to the rounding of float32.
    """
    plan = make_plan(source, ())
    how = Mix.of(weights, plan.header)
    figures = {need: mixed(need, figure, how) for need, figure in sketch.figures.items() if can_mix(need)}
    return replace(sketch, header=plan.header, non_finite=plan.non_finite, figures=figures)


@singledispatch
def mixed(need: Need, figure: Any, how: Mix) -> Any:
    """The figure of the mixed round."""
    raise TypeError(f"{need} does not follow from the figure of another round")


@mixed.register
def _(need: GramNeed, figure: Gram, how: Mix) -> Gram:
    return _mixed_gram(figure, how, how.header.norms)


@mixed.register(TensorGramNeed)
@mixed.register(OutputRowGramNeed)
def _(need: Need, figure: dict[str, Gram], how: Mix) -> dict[str, Gram]:
    return {name: _mixed_gram(gram, how, mixed_norms(gram, how.weights)[how.place]) for name, gram in figure.items()}


@mixed.register(GlobalModelNeed)
@mixed.register(RootGradientNeed)
@mixed.register(LastStepNeed)
def _(need: Need, figure: VectorProducts | None, how: Mix) -> VectorProducts | None:
    if figure is None:
        return None
    deviations = how.relative @ figure.with_deviations + how.beyond * figure.with_reference
    reference = how.weights[how.reference]
    return VectorProducts(
        with_deviations=deviations[how.place],
        with_reference=float(reference @ figure.with_deviations + reference.sum() * figure.with_reference),
        norm=figure.norm,
        client_norms=how.header.norms,
    )


@mixed.register
def _(need: ProjectionNeed, figure: Projected, how: Mix) -> Projected:
    return replace(figure, rows=(how.weights @ figure.rows)[how.place])


@mixed.register
def _(need: OutputColumnsNeed, figure: OutputLayer | None, how: Mix) -> OutputLayer | None:
    if figure is None:
        return None
    values = (how.weights @ figure.updates).astype(np.float32).astype(np.float64)  # as they would be stored
    return replace(figure, updates=values[how.place])


def _mixed_gram(gram: Gram, how: Mix, norms: Vector) -> Gram:
    """`⟨(b_i + u_i) , (b_j + u_j)⟩` with `b` the combined deviations from the old reference `r` and `u` times `r`."""
    header = how.header
    with_r = gram.with_reference * gram.scale * gram.scale[gram.reference]  # ⟨g_i - r, r⟩
    r_squared = float(gram.norms[gram.reference] ** 2)
    relative, beyond, row = how.relative, how.beyond, how.weights[how.reference]
    combined, along = relative @ gram.deviations, relative @ with_r
    cross = np.outer(along, beyond)
    deviations = combined @ relative.T + cross + cross.T + np.outer(beyond, beyond) * r_squared
    times = float(row.sum())
    with_reference = combined @ row + along * times + beyond * (float(row @ with_r) + times * r_squared)
    scale = header.scale
    deviations = ((deviations + deviations.T) / 2.0)[np.ix_(how.place, how.place)]
    return Gram(
        centred=deviations / np.outer(scale, scale),
        with_reference=with_reference[how.place] / (scale * scale[header.reference]),
        scale=scale,
        norms=norms,
        reference=header.reference,
    )
