"""Find the way through a directed graph, one node a token. No prompt shows the graph: it must be learnt by walking.

## Description
A fixed random directed graph of `num_nodes` nodes, named `a`, `b`, ...; `a` is the goal. The prompt names the start,
each token the next node, and the end token says that the walk has arrived. 21 nodes have 20 starts: 20 problems.

## Action Space
`Discrete(num_nodes + 1)`: a node, or the end token (the last id). `action_masks()` allows the nodes that an edge leads
to; at the goal, which no edge leaves, the end token and nothing else. So a masked walk ends by arriving or by running
out of tokens. `masked=False` allows everything, and what is no edge is then for the agent to find out.

## Starting State
Any node but the goal, uniformly.

## Rewards
Optimality in [0, 1] of a walk of n nodes, start and goal counted: (max_length - n) / (max_length - shortest), where
`shortest` is the number of nodes on a shortest path, by breadth-first search. A walk with a step that is no edge, or
one that does not end at the goal, scores 0; so does one of max_length nodes. 1 is a shortest path, and success.

## Episode End
The end token, or the `max_length - 1`-th token.

## Splits
None: `train` and `all` are all starts, `heldout` is refused. Where edges lead stands in no prompt, so an agent can know
the way from a start only by having walked there, and a score on unseen starts would measure the luck of the split.

## References
The illustrative example of Chen et al. 2021, "Decision Transformer", arXiv:2106.01345, in the form of trlx
(github.com/CarperAI/trlx, examples/randomwalks/randomwalks.py at 0a8e2bc), whose optimality this is: 21 nodes, walks
of 10, an edge with probability 0.1. Different here: the generator, hence the graph; a graph on which some start cannot
arrive in time is drawn again (trlx divides by 0 there); an end token; nothing may follow the goal (trlx ignores it).

## Version History
v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from textenvs.rewards.base import ProblemLike, Responses, Reward, Scores
from textenvs.task import Problem, Task, check_flag, check_index, check_split, int_in
from textenvs.vocab import CharVocab

GOAL = 0
#: After so many graphs without one whose every start can arrive, the settings are to blame.
MAX_DRAWS = 10_000


class RandomWalk(Task):
    """Walk to node `a` by the shortest way, along edges that only walking shows: `c` -> `eoa`.

    Args:
        num_nodes: 3 to 26, one letter each.
        max_length: most nodes of a walk, start and goal counted, 3 to 1,000.
        p_edge: probability of each edge, in (0, 1].
        graph_seed: which graph, at least 0.
        masked: whether `action_masks()` allows the edges only, or everything.
        split: "train" or "all", which are the same.
    """

    def __init__(
        self,
        *,
        num_nodes: int = 21,
        max_length: int = 10,
        p_edge: float = 0.1,
        graph_seed: int = 0,
        masked: bool = True,
        split: str = "train",
    ) -> None:
        num_nodes = int_in("num_nodes", num_nodes, 3, len(ascii_lowercase))
        max_length = int_in("max_length", max_length, 3, 1000)
        graph_seed = int_in("graph_seed", graph_seed, 0, 2**63)
        if isinstance(p_edge, bool) or not isinstance(p_edge, (int, float)) or not 0 < p_edge <= 1:
            raise ValueError(f"p_edge must be a number in (0, 1], got {p_edge!r}; the usual one is 0.1")
        if check_split(split) == "heldout":
            raise ValueError(
                "split must be 'train' or 'all' for random_walk, got 'heldout'; "
                "no prompt says where edges lead, so unseen starts cannot be solved"
            )
        self.has_masks = check_flag("masked", masked)
        self.nodes = ascii_lowercase[:num_nodes]
        self.max_length, self.max_prompt_tokens, self.max_new_tokens = max_length, 1, max_length - 1
        self.vocab = CharVocab(self.nodes)
        #: (N, N) True where an edge leads from a row's node to a column's.
        self.edges = draw_graph(num_nodes, max_length, p_edge, np.random.default_rng(graph_seed))
        #: (N,) nodes on a shortest path from each node to the goal, both ends counted.
        self.shortest = shortest_lengths(self.edges)
        self.reward = Optimality(self.edges, max_length)
        # (N, V) what may follow each node: its edges, and at the goal the end token.
        at_goal = np.arange(num_nodes) == GOAL
        self._legal = np.column_stack([self.edges, at_goal])
        self._legal.flags.writeable = False

    def __len__(self) -> int:
        return len(self.nodes) - 1

    def __getitem__(self, k: int) -> Problem:
        check_index(k, len(self))
        return self.problem(self.nodes[k + 1])

    def problem(self, prompt: str) -> Problem:
        """See `Task.problem`; the reference is the first shortest path in alphabetical order."""
        if len(prompt) != 1 or prompt not in self.nodes[1:]:
            raise ValueError(f"prompt must be one node other than the goal, one of {self.nodes[1:]}, got {prompt!r}")
        node, path = self.nodes.index(prompt), ""
        while node != GOAL:
            nearer = self.edges[node] & (self.shortest == self.shortest[node] - 1)
            node = int(nearer.argmax())
            path += self.nodes[node]
        return Problem(prompt, (path,))

    def legal(self, problem: Problem, token_ids: Sequence[int]) -> NDArray[np.bool_]:
        """See `Task.legal`."""
        legal: NDArray[np.bool_] = self._legal[token_ids[-1] if token_ids else self.nodes.index(problem.prompt)]
        return legal

    def optimal_return(self) -> float:
        """A shortest path scores 1, and nothing is shorter."""
        return 1.0

    def random_return(self) -> float:
        """Sum over the number of steps of P(arrive by edges) x P(then end) x optimality, averaged over the starts."""
        v = self.vocab.num_tokens
        starts = np.arange(1, len(self.nodes))
        at = np.eye(len(self.nodes))[starts]  # (starts, N) P(the walk so far is legal, and stands there)
        total = np.zeros(len(starts))
        for num_steps in range(1, self.max_new_tokens + 1):
            at = at @ self.edges / v
            # The last step leaves no room for the end token and needs none, but whoever arrives by it scores 0.
            total += at[:, GOAL] / v * (self.max_length - num_steps - 1) / (self.max_length - self.shortest[starts])
        return float(total.mean())


class Optimality(Reward):
    """(max_length - nodes of the walk) / (max_length - nodes of a shortest one); 0 unless legal to the goal. In [0, 1].

    Withstands: the empty walk, the goal without a way there, steps that are no edge, anything after the goal, a walk
    that is too long.

    Args:
        edges: (N, N) bool; nodes are the first N lower-case letters, the first the goal.
        max_length: nodes of a walk that scores 0 for its length.
    """

    name = "optimality"
    value_range = (0.0, 1.0)

    def __init__(self, edges: NDArray[np.bool_], max_length: int) -> None:
        nodes = ascii_lowercase[: len(edges)]
        self._edges = {nodes[u] + nodes[v] for u, v in np.argwhere(edges)}
        self._shortest: dict[str, int] = dict(zip(nodes, shortest_lengths(edges).tolist(), strict=True))
        self._max_length, self._goal = max_length, nodes[GOAL]

    def __call__(self, problems: Sequence[ProblemLike], responses: Responses) -> Scores:
        """See `Reward.__call__`."""
        pairs = zip(problems, responses.texts, strict=True)
        values = np.array([self._score(problem.prompt + text) for problem, text in pairs])
        return Scores(values, {self.name: values})

    def _score(self, walk: str) -> float:
        # No edge leaves the goal, so a legal walk that ends there has not been there before.
        if not walk.endswith(self._goal) or any(walk[i : i + 2] not in self._edges for i in range(len(walk) - 1)):
            return 0.0
        return max(0.0, (self._max_length - len(walk)) / (self._max_length - self._shortest[walk[0]]))


def draw_graph(num_nodes: int, max_length: int, p_edge: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N, N) a directed graph in which every start has a path to the goal of fewer than max_length nodes.

    Each edge is there with probability p_edge, none from a node to itself and none from the goal; drawn until one will
    do.

    Raises:
        ValueError: none of 10,000 does.
    """
    for _ in range(MAX_DRAWS):
        edges: NDArray[np.bool_] = rng.random((num_nodes, num_nodes)) < p_edge
        np.fill_diagonal(edges, False)
        edges[GOAL] = False
        # N + 1 is no way at all, however long a walk may be.
        if shortest_lengths(edges).max() < min(max_length, num_nodes + 1):
            return edges
    raise ValueError(
        f"p_edge must let every start reach the goal within {max_length - 1} nodes, got {p_edge} with {num_nodes} "
        f"nodes, and no such graph in {MAX_DRAWS:,}; raise p_edge or max_length"
    )


def shortest_lengths(edges: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) nodes on a shortest path from each node to the goal, both ends counted; N + 1 where there is none.

    Breadth-first search, backwards from the goal.

    Args:
        edges: (N, N) bool, from row to column.
    """
    num_nodes = len(edges)
    lengths = np.full(num_nodes, num_nodes + 1)
    frontier = np.arange(num_nodes) == GOAL
    for length in range(1, num_nodes + 1):
        lengths[frontier] = length
        frontier = edges[:, frontier].any(axis=1) & (lengths > num_nodes)
    return lengths
