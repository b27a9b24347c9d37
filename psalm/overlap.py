"""Arithmetic between binary masks and proposals: how much masks overlap, who owns a pixel, which proposal goes to which object.

Numbers only; what counts as too much overlap is decided by the policies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pair_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every mask of one set with every mask of another: bool [N, H, W], [M, H, W] -> float64 [N, M].

    Two empty masks have 0.
    """
    one, other = _packed(first), _packed(second)
    intersection = np.array([np.bitwise_count(other & bits).sum(axis=1, dtype=np.int64) for bits in one]).reshape(len(one), len(other))
    areas = [np.bitwise_count(bits).sum(axis=1, dtype=np.int64) for bits in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return intersection / np.maximum(union, 1)


def stack(masks: Sequence[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """Masks of one size as one array, bool [N, H, W]; unlike np.stack it takes none."""
    return np.concatenate([np.zeros((0, *size_hw), bool), *(mask[None] for mask in masks)])


def disjoint(masks: Sequence[np.ndarray], priorities: Sequence[float]) -> list[np.ndarray]:
    """The masks without overlap, bool [H, W] each: a pixel goes to the highest priority that claims it, at a tie to the earlier."""
    order = sorted(range(len(masks)), key=lambda k: (-priorities[k], k))
    answer = list(masks)
    taken = np.zeros_like(masks[0]) if masks else None
    for k in order:
        answer[k] = masks[k] & ~taken
        taken = taken | masks[k]
    return answer


def best_distinct(worth: np.ndarray) -> list[int | None]:
    """One column a row, no column twice, the sum of their worth the greatest: float [K, N] >= 0 -> K columns.

    None for a row that gets nothing; an entry of 0 is never chosen.
    Source: the Hungarian method by shortest augmenting paths (Jonker and Volgenant 1987); scipy has it, but only training needs scipy.
    """
    rows, columns = worth.shape
    cost = np.concatenate([-worth, np.zeros((rows, rows))], axis=1)  # the last columns mean "nothing"
    row_price, column_price = np.zeros(rows), np.zeros(columns + rows)
    owner, chosen = np.full(columns + rows, -1), np.full(rows, -1)
    for start in range(rows):
        distance, reached_from, settled, column = _shortest_path(start, cost - row_price[:, None] - column_price, owner)
        inner = np.flatnonzero(settled & (owner >= 0))
        row_price[start] += distance[column]
        row_price[owner[inner]] += distance[column] - distance[inner]
        column_price[inner] -= distance[column] - distance[inner]
        while column >= 0:  # hand the columns along the path on, back to `start`, which had none
            row = reached_from[column]
            owner[column] = row
            chosen[row], column = column, chosen[row]
    return [int(c) if c < columns and worth[k, c] > 0 else None for k, c in enumerate(chosen)]


def _shortest_path(start: int, reduced: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Dijkstra from a row to the nearest free column: distances, the row each column was reached from, settled columns, that column."""
    distance = np.full(reduced.shape[1], np.inf)
    reached_from = np.full(reduced.shape[1], -1)
    settled = np.zeros(reduced.shape[1], bool)
    row, so_far = start, 0.0
    while True:
        nearer = ~settled & (so_far + reduced[row] < distance)
        distance[nearer] = so_far + reduced[row, nearer]
        reached_from[nearer] = row
        column = int(np.argmin(np.where(settled, np.inf, distance)))
        settled[column] = True
        if owner[column] < 0:
            return distance, reached_from, settled, column
        row, so_far = owner[column], distance[column]


def _packed(masks: np.ndarray) -> np.ndarray:
    return np.packbits(masks.reshape(len(masks), int(np.prod(masks.shape[1:]))), axis=1)
