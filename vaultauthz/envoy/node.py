"""How an Envoy calls itself: by this, one service of ours can ask about what another was told."""

from __future__ import annotations

import re
from typing import Final, Protocol

_MOST: Final = 200  # characters


class Node(Protocol):
    """envoy.config.core.v3.Node, as any of our protos has it."""

    id: str
    cluster: str


def name_of(node: Node) -> str:
    """CLUSTER/ID, fit for a log; "" for a node that does not say."""
    name = f"{node.cluster}/{node.id}" if node.cluster else node.id
    return re.sub(r"[^\x21-\x7e]", "?", name)[:_MOST]
