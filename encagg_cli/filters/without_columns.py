"""Which filters a round's sketch answers even where that sketch was not made from columns."""

from collections.abc import Iterable

from encagg_cli.filters.base import Filter
from encagg_cli.sketch import GramNeed, Need
from encagg_cli.sketch.mixing import can_mix


def needs_without_columns(filters: Iterable[Filter]) -> tuple[Need, ...] | None:
    """What these filters need of a round, the Gram matrix included, if all of it follows from another round's sketch.

    None where some filter counts single values, reads a round twice, or looks at its own aggregate.
    """
    filters = tuple(filters)
    needs = tuple(dict.fromkeys((GramNeed(), *(need for chosen in filters for need in chosen.needs()))))
    reads_again = any(
        type(chosen).refine is not Filter.refine or type(chosen).wants_aggregate is not Filter.wants_aggregate
        for chosen in filters
    )
    return None if reads_again or not all(map(can_mix, needs)) else needs
