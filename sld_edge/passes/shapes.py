"""What is known of shapes and of the integers that graphs make from them; needs no torch."""

from __future__ import annotations

from typing import Any

#: One size: a number, or the name (an expression of names) of a free one; None is not known.
Size = int | str | None


def sizes_of(value: Any) -> list[Size] | None:
    """The declared sizes of a value; None where not even their number is known."""
    if value is None or value.shape is None:
        return None
    return [size if isinstance(size, int) else _ordered(size.value) for size in value.shape]


def integers_of(value: Any) -> list[Size] | None:
    """The entries of a one-dimensional integer value as far as constants and declared shapes tell; else None."""
    if value is None:
        return None
    if value.const_value is not None:
        return [int(one) for one in value.const_value.numpy().ravel()]
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Shape":
        sizes = sizes_of(node.inputs[0])
        return None if sizes is None else sizes[_attribute(node, "start") : _attribute(node, "end")]
    if node.op_type == "Slice":
        data, *limits = [integers_of(one) for one in node.inputs]
        start, end, axis, step = [*(one[0] if one else None for one in limits), 0, 1][:4]
        if len(limits) == 3:
            step = 1
        if data is None or axis != 0:
            return None
        if isinstance(start, int) and isinstance(end, int) and isinstance(step, int):
            return data[start:end:step]
        return None
    if node.op_type == "Concat":
        parts = [integers_of(one) for one in node.inputs]
        if any(part is None for part in parts):
            return None
        return [one for part in parts for one in part or ()]
    return None


def scalar_of(value: Any) -> float | None:
    """The number in a constant of one element; None for anything else."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().item())


def permutation_of(node: Any) -> tuple[int, ...]:
    """The order of axes of a Transpose; empty where it is left out."""
    attribute = node.attributes.get("perm")
    return () if attribute is None else tuple(attribute.as_ints())


def _attribute(node: Any, name: str) -> int | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else int(attribute.as_int())


def _ordered(name: str | None) -> str | None:
    """A product of names with its factors in one order, so that equal ones compare equal."""
    if name is None or "+" in name or "(" in name:
        return name
    return "*".join(sorted(part.strip() for part in name.split("*")))
