"""The page of several runs: one section an env, never two envs on one axis, then what holds over all of them."""

import numpy as np

from slm_lab.experiment.records.compare import Comparison, Method
from slm_lab.experiment.records.curves import moving_average
from slm_lab.experiment.records.methods import differences, spec_key
from slm_lab.experiment.records.statistics import Estimate, bootstrap_interval, performance_profile
from slm_lab.experiment.records.wording import NAMES, aggregate_table, coarse, env_table, interval, number
from slm_lab.experiment.report.figures import (
    Figure,
    average_traces,
    band,
    colour,
    encode,
    interval_trace,
    points_for,
    rows_axis,
    table_trace,
)
from slm_lab.experiment.report.page import Markup, Page, Section, headline, note, sentences, table, tag
from slm_lab.experiment.report.single import STATUS

THRESHOLDS = 81
"""Points of a performance profile."""


def several_page(found: Comparison) -> Page:
    """The page of several runs."""
    histories = [h for m in found.methods for h in m.histories]
    colours = {label: colour(i) for i, label in enumerate(found.labels)}
    sections = [Section(env, _env(found, env, colours)) for env in found.envs]
    if found.aggregates:
        sections += [
            Section("Over all envs" if len(found.references) > 1 else "Normalized", _aggregates(found, colours)),
            Section("Performance profiles", _profiles(found, colours)),
        ]
    sections += [Section("Who is better", _improvement(found)), Section("Specs", _specs(found))]
    count = sum(len(m.scores) for m in found.methods)
    envs = ", ".join(found.envs) if len(found.envs) <= 4 else f"{len(found.envs)} envs"
    statuses = {h.status for h in histories}
    return Page(
        title=" / ".join(found.labels) if len(found.labels) <= 5 else f"{len(found.labels)} methods",
        subtitle=f"{len(histories)} runs, {count} sessions, on {envs}",
        badges=[(s, STATUS.get(s, "plain")) for s in sorted(statuses)],
        headline=_headline(found),
        sections=[s for s in sections if s.parts],
        switches=colours,
        missing=[*found.notes, *(f"{h.layout.root.name}: {m}" for h in histories for m in h.missing)],
    )


def _headline(found: Comparison) -> Markup:
    """The best method, and how sure that is."""
    fewest = min((len(m.scores) for m in found.methods), default=0)
    if found.aggregates:
        best = max(found.aggregates, key=lambda k: found.aggregates[k]["iqm"].value)
        e = found.aggregates[best]["iqm"]
        what = "IQM of normalized scores"
    else:
        known = [m for m in found.methods if m.scores]
        if not known:
            return sentences(["No run has a score yet."])
        top = max(known, key=lambda m: m.mean.value)
        best, e, what = top.label, top.mean, f"mean {found.metric}"
    chances = [(b, p) for (a, b), p in found.improvement.items() if a == best]
    words = [f"{best} has the highest {what}: {interval(e)}."]
    words += [f"A run of it beats one of {b} with probability {interval(p)}." for b, p in chances[:4]]
    words.append(
        "In brackets: 95 % intervals by the stratified bootstrap, which resamples the sessions of each env. "
        + coarse(fewest)
    )
    return headline(number(e.value), f"{best}, {what}", words)


def _env(found: Comparison, env: str, colours: dict[str, str]) -> list[Markup | Figure]:
    methods = found.of(env)
    column = found.metric if any(found.metric in s.train for m in methods for s in m.sessions) else "total_reward"
    smooth = column.startswith("total_reward")
    column, what = ("total_reward", ", moving average") if smooth else (column, "")
    figure = Figure(
        f"{column} on {env}: mean over sessions and 95 % interval; thin: sessions", f"{column}{what}", wide=True
    )
    points = points_for(3 * sum(len(m.sessions) for m in methods) * len(found.envs))
    for m in methods:
        look = {"color": colours[m.label], "switch": m.label, "group": m.label}
        tables = [
            {**s.train, "drawn": moving_average(s.train[column]) if smooth else s.train[column]}
            for s in m.sessions
            if column in s.train
        ]
        for i, one in enumerate(tables):
            name = f"{m.label}, session {i}"
            trace = table_trace(one, "drawn", points, name=name, width=0.9, opacity=0.35, legend=False, **look)
            figure.add(trace)
        if tables:
            figure.traces += average_traces(tables, "drawn", name=m.label, color=colours[m.label], switch=m.label)
    headers, rows = env_table(found, env)
    words = (
        f"Score: {found.metric}, mean of the last 100 rows of each session"
        + (f" up to frame {found.at:,}" if found.at is not None else "")
        + ". Frames and seconds: the median session's, when its moving average reached the target, and how many did."
    )
    parts: list[Markup | Figure] = [figure] if figure.traces else []
    return [*parts, table(headers, rows, numbers=range(1, len(headers))), note(words)]


def _aggregates(found: Comparison, colours: dict[str, str]) -> list[Markup | Figure]:
    labels = [label for label in reversed(found.labels) if label in found.aggregates]
    figures: list[Markup | Figure] = []
    for name in found.aggregates[labels[0]]:
        estimates = [found.aggregates[label][name] for label in labels]
        trace = interval_trace(estimates, labels, [colours[label] for label in labels])
        lower = "; lower is better" if name == "optimality_gap" else ""
        layout = {"yaxis": rows_axis(len(labels))}
        figures.append(Figure(NAMES[name], "", {"x": f"normalized score{lower}"}, [trace], layout))
    scale = [[env, number(r.low), number(r.high), r.source] for env, r in found.references.items()]
    return [
        note("Scores are normalized so that 0 is a random policy and 1 the reference of the env."),
        *figures,
        table(*aggregate_table(found), numbers=range(1, 5)),
        table(["env", "0 is", "1 is", "which is"], scale, numbers=(1, 2)),
    ]


def _profiles(found: Comparison, colours: dict[str, str]) -> list[Markup | Figure]:
    """Share of runs above each normalized score, with pointwise intervals."""
    tasks = {label: t for label in found.labels if (t := found.normalized(label)) is not None}
    highest = max(float(np.max(np.concatenate(t))) for t in tasks.values())
    lowest = min(0.0, *(float(np.min(np.concatenate(t))) for t in tasks.values()))
    grid = np.linspace(lowest, max(highest, 0.0) * 1.02 + 1e-9, THRESHOLDS)
    figure = Figure("Share of runs that score higher", "share of runs", {"x": "normalized score"}, wide=True)
    for label, scores in tasks.items():
        color = colours[label]
        low, high = bootstrap_interval(lambda t: performance_profile(t, grid), scores)
        if np.isfinite(low).all():
            x, y = encode([*grid, *grid[::-1]]), encode([*high, *low[::-1]])
            figure.traces.append(band(label, color, label, x=x, y=y))
        look = {"type": "scatter", "mode": "lines", "legendgroup": label, "switch": label}
        line = {"x": encode(grid), "y": encode(performance_profile(scores, grid)), "name": label}
        figure.traces.append({**look, **line, "line": {"color": color, "width": 2, "shape": "hv"}})
    figure.layout = {"yaxis": {"range": [-0.02, 1.02]}}
    return [note("Higher curves are better; where two cross, neither is better everywhere."), figure]


def _improvement(found: Comparison) -> list[Markup | Figure]:
    pairs = [
        (pair, e) for pair, e in found.improvement.items() if found.labels.index(pair[0]) < found.labels.index(pair[1])
    ]
    if not pairs:
        return []
    pairs = [pair if pair[1].value >= 0.5 else ((pair[0][1], pair[0][0]), _turned(pair[1])) for pair in pairs]
    labels = [f"{a} > {b}" for (a, b), _ in reversed(pairs)]
    trace = interval_trace([e for _, e in reversed(pairs)], labels, [colour(0)] * len(pairs))
    look = {"dash": "dot", "width": 1}
    middle = {"type": "line", "x0": 0.5, "x1": 0.5, "yref": "paper", "y0": 0, "y1": 1, "line": look}
    layout = {"xaxis": {"range": [-0.02, 1.02]}, "yaxis": rows_axis(len(pairs)), "shapes": [middle]}
    figure = Figure(
        "Probability that a run of the first beats one of the second", "", {"x": "probability"}, [trace], layout
    )
    figure.wide = len(pairs) > 4
    words = (
        "Of a random session of each, in the same env, averaged over envs. An interval that holds 0.5 leaves open who "
        "is better."
    )
    rows = [[label, interval(e)] for label, (_, e) in zip(reversed(labels), pairs, strict=True)]
    return [note(words), figure, table(["", "probability"], rows, numbers=(1,))]


def _turned(e: Estimate) -> Estimate:
    return Estimate(1 - e.value, 1 - e.high, 1 - e.low)


def _specs(found: Comparison) -> list[Markup | Figure]:
    """The keys in which the methods differ, env by env."""
    parts: list[Markup | Figure] = []
    for env in found.envs:
        methods: list[Method] = found.of(env)
        rows = differences([spec_key(m.histories[0]) for m in methods])
        if rows:
            cells = [[k, *(tag("code", "not set" if v is None else v) for v in values)] for k, values in rows.items()]
            parts += [tag("h3", env), table(["key", *(m.label for m in methods)], cells)]
    runs = [
        [m.label, m.env, h.layout.root.name, h.status, h.info.get("git_commit") or "-"]
        for m in found.methods
        for h in m.histories
    ]
    return [*parts, tag("h3", "Runs"), table(["method", "env", "run", "status", "commit"], runs)]
