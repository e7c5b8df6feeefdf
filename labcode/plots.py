"""One figure style for light and dark pages: transparent background, mid-grey text, colours legible on both."""

GREY = "#7a7f87"
# Chosen to keep a contrast of at least 3:1 on white and on the dark theme, and to differ for colour-blind readers.
COLOURS = ("#3b82c4", "#d9772b", "#2f9e6e", "#c0578f", "#8b74cc", "#b08a1e")

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "figure.facecolor": "none", "savefig.facecolor": "none",
    "axes.facecolor": "none", "axes.edgecolor": GREY, "axes.labelcolor": GREY, "axes.titlecolor": GREY,
    "axes.titlesize": 11, "axes.labelsize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": GREY, "grid.alpha": 0.25, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "text.color": GREY, "xtick.color": GREY, "ytick.color": GREY, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "lines.markersize": 5,
    "figure.constrained_layout.use": True, "image.cmap": "viridis",
    "figure.max_open_warning": 0,  # a chapter has more than twenty figures, and as a script keeps them
}  # fmt: skip


def style() -> None:
    """Use the course's figure style from here on."""
    import matplotlib as mpl

    mpl.rcParams.update(STYLE)
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=COLOURS)


def axes(columns: int = 1, width: float = 7.0, height: float = 2.8, rows: int = 1, **keywords):
    """A figure in the course's style: returns (figure, axes); one axis alone, or an array of them."""
    import matplotlib.pyplot as plt

    style()
    return plt.subplots(rows, columns, figsize=(width, height), **keywords)


def bars(axis, arms: dict[str, list[float]], label: str, chance: float | None = None) -> None:
    """Horizontal bars of the mean over seeds, every seed a dot, the first arm on top.

    arms    name -> one value per seed
    label   of the value axis, with its unit
    chance  a dashed line
    """
    names = list(arms)
    for row, name in enumerate(names):
        values = [float(v) for v in arms[name]]
        axis.barh(row, sum(values) / len(values), height=0.62, color=COLOURS[0], alpha=0.75)
        axis.plot(values, [row] * len(values), "o", color=GREY, markersize=3.5)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(label)
    if chance is not None:
        axis.axvline(chance, color=GREY, linestyle="--", linewidth=1)


def legend(axis, **keywords):
    """The legend beside the axis, where no curve runs."""
    return axis.legend(**dict(loc="center left", bbox_to_anchor=(1.01, 0.5)) | keywords)


def curve(found, width: float = 6.5, height: float = 2.8, floor: float | None = None):
    """A curve of the ledger (``run.curve``): this run's points, the committed longer runs as lines in their bands.

    floor  a dashed line: the untrained encoder or the trivial answer

    Returns the figure. Arms keep their colour at every scale.
    """
    figure, axis = axes(1, width, height)
    scales = {"this run": found} | found.longer
    points = list(dict.fromkeys(x for drawn in reversed(scales.values()) for x in drawn.x))  # the longest's order
    arms = dict.fromkeys(arm for drawn in scales.values() for arm in drawn.arms)
    colours = dict(zip(arms, COLOURS * len(arms), strict=False))
    named = isinstance(points[0], str)
    for scale, drawn in scales.items():
        place = [points.index(x) for x in drawn.x] if named else drawn.x
        for arm in drawn.arms:
            colour, (mean, low, high) = colours[arm], zip(*drawn.band(arm), strict=True)
            if drawn is found:
                axis.plot(place, mean, "o:", color=colour, linewidth=1, label=arm)
                axis.vlines(place, low, high, color=colour, linewidth=1)
            else:
                axis.plot(place, mean, "-" if scale == "long" else "--", color=colour, label=f"{arm}, {scale}")
                axis.fill_between(place, low, high, color=colour, alpha=0.18, linewidth=0)
    if named:
        axis.set_xticks(range(len(points)), points)
    elif found.log:
        axis.set_xscale("log")
        axis.set_xticks(points, [f"{x:g}" for x in points])
        axis.minorticks_off()
    axis.set(xlabel=found.xlabel, ylabel=found.ylabel)
    if floor is not None:
        axis.axhline(floor, color=GREY, linestyle="--", linewidth=1)
    if len(found.arms) * (1 + len(found.longer)) > 1:
        legend(axis)
    return figure


def images(pictures, rows: int = 1, labels=None, width: float = 7.0, names=None):
    """A grid of images (n, 1 or 3, h, w), uint8 or floats in [0, 1], row by row; returns the figure.

    labels  a title for each image
    names   a word for each row, at its left

    What lies a little outside of [0, 1] is clamped. Raises ValueError for another shape, and for floats in 0 … 255.
    """
    import torch

    pictures = torch.as_tensor(pictures).detach().cpu()
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or not len(pictures):
        raise ValueError(f"pictures must be (n, 1 or 3, height, width), got {tuple(pictures.shape)}")
    if pictures.dtype != torch.uint8 and pictures.max() > 16:
        high = float(pictures.max())
        raise ValueError(f"pictures must be uint8 or in [0, 1], got values up to {high:.4g}, which would all be white")
    pictures = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float().clamp(0, 1)
    columns = -(-len(pictures) // rows)
    figure, grid = axes(columns, width, width / columns * rows * 1.08, rows, squeeze=False)
    for axis in grid.flat:
        axis.axis("off")
    for i, (axis, picture) in enumerate(zip(grid.flat, pictures, strict=False)):
        axis.imshow(picture.permute(1, 2, 0).squeeze(-1), vmin=0, vmax=1, cmap="gray", interpolation="nearest")
        if labels is not None:
            axis.set_title(labels[i], fontsize=8)
    for row, name in zip(grid, names or (), strict=False):
        row[0].text(-0.08, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    return figure


def diagram(parts: dict[str, tuple], arrows: list[tuple], width: float = 5.4, height: float = 2.4):
    """The mechanism of a method, drawn: boxes for what moves through it, arrows for where it goes. Returns the figure.

    parts   name as shown -> (column, row) or (column, row, kind); kinds are colours, told in the legend: "data",
            "trained", "copy" (a moving average, or frozen), "store" (queue, bank, table), "loss"; rows grow downwards
    arrows  (from, to) by the names of ``parts``, or (from, to, words), or (from, to, words, "stop"), which is dashed
            and crossed: no gradient flows back through it

    Ten lines of a notebook are a diagram; with at most five columns and short names it is readable on a phone.
    Raises ValueError for an arrow to or from a part that is not there, and for an unknown kind.
    """
    kinds = {"data": GREY, "trained": COLOURS[0], "copy": COLOURS[4], "store": COLOURS[5], "loss": COLOURS[3]}
    figure, axis = axes(1, width, height)
    places = {name: place[:2] for name, place in parts.items()}
    boxes, used = {}, []
    for name, (column, row, *kind) in parts.items():
        kind = kind[0] if kind else "data"
        used += [kind] if kind not in ("data", *used) else []
        if kind not in kinds:
            raise ValueError(f"parts[{name!r}] must be of a kind in {', '.join(kinds)}, got {kind!r}")
        box = dict(boxstyle="round,pad=0.4", facecolor=kinds[kind], edgecolor="none")
        shown = axis.text(column, row, name, ha="center", va="center", fontsize=10, color="white", bbox=box, zorder=5)
        boxes[name] = shown.get_bbox_patch()
    for start, end, *words in arrows:
        if missing := {start, end} - parts.keys():
            raise ValueError(f"arrows name {sorted(missing)}, which parts does not have")
        stop = words[1:] == ["stop"]
        tip = dict(arrowstyle="-|>", color=GREY, lw=1.2, shrinkA=2, shrinkB=2, linestyle="--" if stop else "-")
        bend = dict(connectionstyle="arc3,rad=0.25") if (end, start) in [a[:2] for a in arrows] else {}
        between = dict(patchA=boxes[start], patchB=boxes[end])
        axis.annotate("", places[end], places[start], arrowprops=tip | between | bend, zorder=4)
        (x1, y1), (x2, y2) = places[start], places[end]
        told = " ".join([*words[:1], *(["✕"] if stop else [])]).strip()
        if told and x1 == x2:
            axis.text(x1 + 0.06, (y1 + y2) / 2, told, ha="left", va="center", fontsize=9, zorder=6)
        elif told:
            axis.text((x1 + x2) / 2, (y1 + y2) / 2 - 0.1, told, ha="center", va="bottom", fontsize=9, zorder=6)
    columns, rows = zip(*places.values(), strict=True)
    axis.set(xlim=(min(columns) - 0.6, max(columns) + 0.6), ylim=(max(rows) + 0.5, min(rows) - 0.5))
    axis.axis("off")
    for kind in used:
        axis.plot([], [], "s", color=kinds[kind], label=kind)
    if used:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(used), fontsize=9)
    return figure


def family(papers: dict[str, tuple[float, float, str]], arrows: list[tuple[str, str]], height: float = 3.4):
    """The map of a chapter: one box a paper, an arrow from a paper to the one that answers it. Returns the figure.

    papers  name as shown -> (column, row, group); rows grow downwards, a group is a colour and a legend entry
    arrows  (from, to) by the names of ``papers``

    Raises ValueError for an arrow to or from a paper that is not on the map.
    """
    figure, axis = axes(1, 7.6, height)
    groups = list(dict.fromkeys(group for _, _, group in papers.values()))
    boxes = {}
    for name, (column, row, group) in papers.items():
        box = dict(boxstyle="round,pad=0.4", facecolor=COLOURS[groups.index(group) % len(COLOURS)], edgecolor="none")
        boxes[name] = axis.text(column, row, name, ha="center", va="center", fontsize=8.5, color="white", bbox=box)
    for start, end in arrows:
        if missing := {start, end} - papers.keys():
            raise ValueError(f"arrows name {sorted(missing)}, which papers does not have")
        tip = dict(arrowstyle="-|>", color=GREY, lw=1.1, shrinkA=2, shrinkB=2, zorder=4)
        between = dict(patchA=boxes[start].get_bbox_patch(), patchB=boxes[end].get_bbox_patch())
        axis.annotate("", papers[end][:2], papers[start][:2], arrowprops=tip | between, zorder=4)
    for group in groups:
        axis.plot([], [], "s", color=COLOURS[groups.index(group) % len(COLOURS)], label=group)
    columns, rows = [p[0] for p in papers.values()], [p[1] for p in papers.values()]
    axis.set(xlim=(min(columns) - 0.6, max(columns) + 0.6), ylim=(max(rows) + 0.5, min(rows) - 0.5))
    axis.axis("off")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(groups), fontsize=8.5)
    return figure
