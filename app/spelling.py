"""Names that were probably mistyped. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, most: int = 2) -> str | None:
    """The known name that is fewest edits away, at most `most`; None where there is none.

    An edit adds, removes or replaces one character, or swaps two neighbours. A name
    that is known itself is its own nearest.
    """
    found = ((distance, other) for other in known if (distance := edits(name, other, most=most)) <= most)
    return min(found, default=(0, None))[1]


def edits(one: str, other: str, *, most: int) -> int:
    """How many edits lie between two texts; any number above `most` means more than `most`."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    above = list(range(len(other) + 1))
    for row, character in enumerate(one, start=1):
        here = [row]
        for column, against in enumerate(other, start=1):
            cost = min(above[column] + 1, here[column - 1] + 1, above[column - 1] + (character != against))
            swapped = row > 1 and column > 1 and character == other[column - 2] and one[row - 2] == against
            here.append(min(cost, before[column - 2] + 1) if swapped else cost)
        if min(here) > most:
            return most + 1
        before, above = above, here
    return above[-1]
