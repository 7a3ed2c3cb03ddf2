"""A spec file rewritten: JSON as the bundled specs are laid out, YAML with the comments it had."""

import copy
import io
import json
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import Comment, CommentedMap, CommentedSeq

from slm_lab.spec.past.draft import Data

WIDTH = 120
"""Columns; what fits is written on one line."""


def json_text(value: Any, indent: int = 0, used: int = 0) -> str:
    """JSON with two blanks a level, and on one line what fits there.

    Its lines begin with `indent` columns; on the first, `used` more are taken, by a key and a comma.

    >>> print(json_text({"a": {"b": [1, 2]}}))
    {"a": {"b": [1, 2]}}
    """
    line = json.dumps(value, ensure_ascii=False)
    if indent + used + len(line) <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    blanks = " " * (indent + 2)
    if isinstance(value, list):
        inner = [json_text(item, indent + 2, 1) for item in value]
        left, right = "[]"
    else:
        keys = [json.dumps(key, ensure_ascii=False) + ": " for key in value]
        inner = [k + json_text(item, indent + 2, len(k) + 1) for k, item in zip(keys, value.values(), strict=True)]
        left, right = "{}"
    return f"{left}\n{blanks}" + f",\n{blanks}".join(inner) + f"\n{' ' * indent}{right}"


def yaml_text(text: str, old: Data, new: Data) -> str:
    """A YAML file with another content, comments kept.

    An object that changes is written out in full in its place, without the anchors and aliases that it was made of.
    """
    yaml = YAML()
    yaml.width = WIDTH
    yaml.preserve_quotes = True
    document = yaml.load(text)
    _change(document, old, new, detach=True)
    for node in document.values():
        if getattr(node, "anchor", None) is not None and node.anchor.value:
            node.anchor.always_dump = True  # also where the last alias is gone: its comments would lose their place
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()


def _change(node: Any, old: Data, new: Data, *, detach: bool) -> None:
    """Write into a node what differs between two objects."""
    for key in [key for key in old if key not in new]:
        del node[key]
    for key, value in new.items():
        was = old.get(key)
        if key in old and was == value and type(was) is type(value):
            continue
        if isinstance(value, dict) and isinstance(was, dict) and isinstance(node.get(key), dict):
            if detach:
                node[key] = _detached(node[key])
            _change(node[key], was, value, detach=False)
        else:
            node[key] = copy.deepcopy(value)


def _detached(node: Any) -> Any:
    """A copy of a node that shares nothing with other parts of the file; its comments and layout go with it."""
    made: Any
    if isinstance(node, dict):
        made = CommentedMap()
        for key, value in node.items():
            made[key] = _detached(value)
    elif isinstance(node, list):
        made = CommentedSeq([_detached(value) for value in node])
    else:
        return copy.deepcopy(node)
    if hasattr(node, Comment.attrib):
        setattr(made, Comment.attrib, copy.deepcopy(getattr(node, Comment.attrib)))
    if node.fa.flow_style():
        made.fa.set_flow_style()
    return made
