"""Tick labels that do not overlap. Takes matplotlib's objects; does not import it."""

from collections.abc import Sequence
from typing import Any


def separate_labels(figure: Any) -> None:
    """Turn, and then thin, the tick labels under each graph until none overlaps another."""
    for axes in figure.axes:
        for turn in (0, 30, 90):
            axes.tick_params(axis="x", labelrotation=turn)
            for label in axes.get_xticklabels(which="both"):
                label.set(ha="right" if turn == 30 else "center", rotation_mode="anchor" if turn == 30 else "default")
            figure.draw_without_rendering()
            shown = _shown(axes)
            if not _overlap(shown):
                break
        else:
            for label in _crowded(shown):
                label.set_visible(False)


def _shown(axes: Any) -> list[Any]:
    labels = [label for label in axes.get_xticklabels(which="both") if label.get_visible() and label.get_text()]
    low, high = sorted(axes.transData.transform([(x, 0) for x in axes.get_xlim()])[:, 0])
    inside = [label for label in labels if low - 1 <= axes.transData.transform(label.get_position())[0] <= high + 1]
    return sorted(inside, key=lambda label: axes.transData.transform(label.get_position())[0])


def _overlap(labels: Sequence[Any]) -> bool:
    return len(_crowded(labels)) > 0


def _crowded(labels: Sequence[Any]) -> list[Any]:
    """Labels that come too close to one that stays, from the left."""
    crowded: list[Any] = []
    last = None
    for label in labels:
        turned = label.get_rotation() % 180 != 0
        place = label.get_window_extent()
        # turned labels stand side by side: what counts is the distance of their base lines
        box = (place.x1 - float(label.get_fontsize()) * 1.3, place.x1) if turned else (place.x0, place.x1)
        if last is not None and box[0] < last + 2:
            crowded.append(label)
        else:
            last = box[1]
    return crowded
