"""Leiden: communities of a neighbour graph by modularity, guaranteed to be connected."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...loss import check_matrix


def neighbour_graph(x: Float[Tensor, "n d"], neighbours: int = 15) -> list[dict[int, float]]:
    """The undirected kNN graph as a list of {neighbour: weight}: 1 where one is among the other's nearest, 2 for both.

    Raises ValueError for neighbours outside 1 … n - 1.
    """
    check_matrix("x", x, rows=2)
    if not 1 <= neighbours < len(x):
        raise ValueError(f"neighbours must be between 1 and {len(x) - 1}, got {neighbours}")
    graph: list[dict[int, float]] = [{} for _ in range(len(x))]
    for rows in torch.arange(len(x)).split(1024):
        distance = torch.cdist(x[rows], x)
        distance[torch.arange(len(rows)), rows] = torch.inf
        for i, near in zip(rows.tolist(), distance.topk(neighbours, largest=False).indices.tolist(), strict=True):
            for j in near:
                graph[i][j] = graph[i].get(j, 0.0) + 1.0
                graph[j][i] = graph[j].get(i, 0.0) + 1.0
    return graph


def modularity(graph: list[dict[int, float]], labels: Int[Tensor, " n"], resolution: float = 1.0) -> float:
    """Q = Σ_c [ e_c / m - γ (K_c / 2m)² ], e_c the weight within a community, K_c its degrees, m all weight."""
    names = labels.tolist()
    degree = [sum(row.values()) for row in graph]
    total = sum(degree)
    inside = sum(w for i, row in enumerate(graph) for j, w in row.items() if names[i] == names[j])
    mass: dict[int, float] = {}
    for name, d in zip(names, degree, strict=True):
        mass[name] = mass.get(name, 0.0) + d
    return inside / total - resolution * sum(m * m for m in mass.values()) / total**2


def leiden(
    graph: list[dict[int, float]], *, resolution: float = 1.0, generator: torch.Generator, refine: bool = True,
    rounds: int = 20,
) -> Int[Tensor, " n"]:  # fmt: skip
    """Move nodes, refine each community, aggregate by the refinement, repeat; Traag, Waltman and van Eck (2019).

    graph   symmetric weights as ``neighbour_graph`` makes them; a loop's weight counts once
    refine  False leaves the refinement out: that is Louvain, whose communities may fall apart

    Refinement merges greedily (the paper draws merges at random), only nodes well connected to their community.
    Number of communities follows from the resolution. Labels 0 … c - 1.
    """
    labels = list(range(len(graph)))  # of the first nodes: which node of the present graph each is in
    degree = [sum(row.values()) for row in graph]
    total = sum(degree)
    if not total:
        return torch.arange(len(graph))
    community = list(range(len(graph)))
    for _ in range(rounds):
        moved = _move(graph, degree, community, resolution / total, generator)
        names = {c: i for i, c in enumerate(dict.fromkeys(community))}
        community = [names[c] for c in community]
        if len(names) == len(graph) or not moved:
            break
        fine = _refine(graph, degree, community, resolution / total, generator) if refine else community
        names = {c: i for i, c in enumerate(dict.fromkeys(fine))}
        fine = [names[c] for c in fine]
        coarse: list[dict[int, float]] = [{} for _ in names]
        mass, above = [0.0] * len(names), [0] * len(names)
        for i, row in enumerate(graph):
            a = fine[i]
            mass[a] += degree[i]
            above[a] = community[i]
            for j, w in row.items():
                coarse[a][fine[j]] = coarse[a].get(fine[j], 0.0) + w
        graph, degree, community = coarse, mass, above
        labels = [fine[i] for i in labels]
    return torch.tensor([community[i] for i in labels]).unique(return_inverse=True)[1]


def _move(graph, degree, community, rate, generator, within=None) -> bool:
    """Each node to the neighbouring community that gains most, until none gains; whether any moved. In place."""
    mass: dict[int, float] = {}
    for c, d in zip(community, degree, strict=True):
        mass[c] = mass.get(c, 0.0) + d
    queue, moved = torch.randperm(len(graph), generator=generator).tolist(), False
    waiting = [True] * len(graph)
    for i in queue:
        waiting[i] = False
        here, links = community[i], {}
        for j, w in graph[i].items():
            if j != i:
                links[community[j]] = links.get(community[j], 0.0) + w
        mass[here] -= degree[i]
        best, gain = here, links.get(here, 0.0) - rate * degree[i] * mass[here]
        for c, w in links.items():
            value = w - rate * degree[i] * mass[c]
            if value > gain + 1e-12:
                best, gain = c, value
        mass[best] = mass.get(best, 0.0) + degree[i]
        if best != here:
            community[i], moved = best, True
            for j in graph[i]:
                if community[j] != best and not waiting[j]:
                    waiting[j] = True
                    queue.append(j)
    return moved


def _refine(graph, degree, community, rate, generator) -> list[int]:
    """Each community anew from single nodes: a node alone joins the part of its own community that gains most."""
    fine, mass, whole = list(range(len(graph))), list(degree), {}
    for c, d in zip(community, degree, strict=True):
        whole[c] = whole.get(c, 0.0) + d
    alone = [True] * len(graph)
    for i in torch.randperm(len(graph), generator=generator).tolist():
        if not alone[i]:
            continue
        links: dict[int, float] = {}
        for j, w in graph[i].items():
            if j != i and community[j] == community[i]:
                links[fine[j]] = links.get(fine[j], 0.0) + w
        if sum(links.values()) < rate * degree[i] * (whole[community[i]] - degree[i]):
            continue  # not well connected to its community: it stays a part of its own
        best, gain = fine[i], 0.0
        for c, w in links.items():
            value = w - rate * degree[i] * mass[c]
            if c != fine[i] and value > gain + 1e-12:
                best, gain = c, value
        if best != fine[i]:
            mass[best] += degree[i]
            mass[fine[i]] -= degree[i]
            alone[best] = False  # whoever is joined stays where it is
            fine[i] = best
    return fine
