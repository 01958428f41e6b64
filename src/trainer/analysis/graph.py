"""Reads the graph that autograd records in a forward pass: the operations from the prediction back to the weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.tree import Tree
from torch import Tensor

from trainer.analysis.inspection import undone
from trainer.errors import UsageError, lacking, refusal
from trainer.training.build import Built

MOST_PASSES = 5
PICTURES = (".svg", ".pdf", ".png")
SOURCE = ".gv"


@dataclass(frozen=True)
class Node:
    """An operation with the nodes that receive its gradient, or a weight."""

    name: str
    shape: tuple[int, ...] | None = None
    inputs: tuple[Node, ...] = ()
    number: int = 0


@dataclass(frozen=True)
class Graph:
    """The graph of one forward pass, from its prediction back."""

    root: Node
    nodes: list[Node] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of operations, without the weights."""
        return sum(node.shape is None for node in self.nodes)

    @property
    def layers(self) -> int:
        """The largest number of operations between the prediction and a weight."""
        depths: dict[int, int] = {}
        for node in self.nodes:  # the inputs of a node come before it
            depths[node.number] = (node.shape is None) + max((depths[n.number] for n in node.inputs), default=0)
        return depths[self.root.number]

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as plain data: the nodes, each with the numbers of its inputs."""
        nodes = [
            {
                "number": node.number,
                "name": node.name,
                **({} if node.shape is None else {"shape": list(node.shape)}),
                "inputs": [one.number for one in node.inputs],
            }
            for node in self.nodes
        ]
        return {"operations": self.size, "depth": self.layers, "root": self.root.number, "nodes": nodes}

    def to_rich(self) -> Tree:
        """Return the graph as a tree; a shared operation is drawn once, a weight at each of its uses."""
        uses = Counter(one.number for node in self.nodes for one in node.inputs)
        drawn: set[int] = set()
        tree = Tree(self.root.name)
        waiting = [(tree, self.root)]
        while waiting:
            branch, node = waiting.pop()
            following = []
            for one in node.inputs:
                text = one.name
                if one.shape is not None:
                    again = f", one of {uses[one.number]} uses" if uses[one.number] > 1 else ""
                    text = f"{one.name}  {' x '.join(map(str, one.shape)) or '1 number'}{again}"
                elif one.number in drawn:
                    text = f"{one.name} (drawn elsewhere)"
                below = branch.add(text)
                if one.shape is None and one.number not in drawn:
                    following.append((below, one))
                    drawn.add(one.number)
            waiting += reversed(following)
        return tree

    @property
    def plan(self) -> list[str]:
        """The names of the nodes, which show whether two passes compute the same."""
        return [node.name for node in self.nodes]


def passes(built: Built) -> list[Graph]:
    """Return the graph of a forward pass, or those of several passes if they differ.

    Raises:
        UsageError: The prediction depends on no weight.
    """
    run = built.run
    run.model.train()
    names = {id(w): name for name, w in run.model.named_parameters()}
    inputs = run.batches.at(run.state.step)[0].inputs
    found: list[Graph] = []
    with undone(run):
        for _ in range(MOST_PASSES):
            with run.autocast:
                prediction = run.model(*inputs)
            if prediction.grad_fn is None:
                raise refusal(built.names["model"], "its prediction depends on no weight, so there is no graph")
            found.append(_graph(prediction, names))
    return found if any(one.plan != found[0].plan for one in found) else found[:1]


def write(graph: Graph, path: str) -> None:
    """Write a graph as a picture, or as a Graphviz file.

    Raises:
        UsageError: The ending is unknown, or Graphviz is not installed.
    """
    ending = Path(path).suffix
    if ending not in (*PICTURES, SOURCE):
        raise refusal(f"-o {path}", "unknown file type", [f"*{one}" for one in (*PICTURES, SOURCE)])
    try:
        import graphviz
    except ImportError as error:
        raise lacking(f"-o {path}", "graphviz", "graph") from error
    drawing = graphviz.Digraph(graph_attr={"rankdir": "BT"}, node_attr={"shape": "box", "fontname": "sans-serif"})
    for node in graph.nodes:
        shape = "" if node.shape is None else f"\n{' x '.join(map(str, node.shape)) or '1 number'}"
        look = {} if node.shape is None else {"style": "filled", "fillcolor": "lightblue"}
        drawing.node(str(node.number), f"{node.name}{shape}", **look)
        for one in node.inputs:
            drawing.edge(str(one.number), str(node.number))
    if ending == SOURCE:
        content = drawing.source.encode()
    else:
        try:
            content = drawing.pipe(format=ending[1:])
        except graphviz.ExecutableNotFound as error:
            what = "needs the Graphviz program dot, which is not installed"
            raise UsageError(f"-o {path}: {what}; -o {Path(path).with_suffix(SOURCE)} does not need it") from error
    Path(path).write_bytes(content)


def _graph(prediction: Tensor, names: dict[int, str]) -> Graph:
    """Walk from a prediction back to the weights without recursion, since a graph may be thousands of nodes deep."""
    done: dict[Any, Node] = {}
    order: list[Node] = []
    waiting: list[tuple[Any, bool]] = [(prediction.grad_fn, False)]
    while waiting:
        function, is_ready = waiting.pop()
        if function in done:
            continue
        if not is_ready:
            waiting.append((function, True))
            waiting += [(one, False) for one in reversed(list(_inputs(function))) if one not in done]
            continue
        weight = getattr(function, "variable", None)
        name = _name(function) if weight is None else names.get(id(weight), "a tensor")
        shape = None if weight is None else tuple(weight.shape)
        done[function] = Node(name, shape, tuple(done[one] for one in _inputs(function)), len(order))
        order.append(done[function])
    return Graph(done[prediction.grad_fn], order)


def _inputs(function: Any) -> Iterator[Any]:
    return (one for one, _ in function.next_functions if one is not None)


def _name(function: Any) -> str:
    """Return the name of an operation: AddmmBackward0 is Addmm."""
    return re.sub(r"Backward\d*$", "", str(function.name()).rpartition("::")[2]).lstrip("_")
