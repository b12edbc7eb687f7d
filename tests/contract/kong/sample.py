"""A plugin for the stock server, which loads a copy of this file: it does what its config's `act` says."""

from __future__ import annotations

import time
from typing import Any

Schema = [
    {"credential": {"type": "string", "required": True}},
    {"act": {"type": "string", "default": "inject"}},
    {"log": {"type": "string"}},
]
version = "0.1.0"
priority = 900


class Plugin:
    """One instance; `config` holds Kong's own keys too."""

    def __init__(self, config: dict[str, Any]) -> None:
        if config["credential"] == "unstartable":
            raise ValueError("no such credential")
        self.config = config

    def access(self, kong: Any) -> None:
        """Do what the config says."""
        getattr(self, self.config["act"])(kong)

    def log(self, kong: Any) -> None:
        """Call the PDK method that the config names, and log what it gives."""
        name = self.config.get("log")
        if name:
            call = kong
            for part in name.split(".")[1:]:
                call = getattr(call, part)
            kong.log.notice(f"{name}: {call()}")

    def inject(self, kong: Any) -> None:
        kong.service.request.set_header("Authorization", "Bearer " + self.config["credential"])

    def copy_header(self, kong: Any) -> None:
        kong.request.get_header("X-Trace")
        self.inject(kong)

    def tell(self, kong: Any) -> None:
        """Say in headers what the PDK gave."""
        consumer = kong.client.get_consumer() or {}
        groups = kong.nginx.get_ctx("authenticated_groups")
        shared = kong.ctx.shared.get("authenticated_groups")
        headers = kong.request.get_headers()
        told = {
            "X-Name": consumer.get("username", "nobody"),
            "X-Key": str((kong.client.get_credential() or {}).get("key")),
            "X-Groups": repr((groups, shared)),
            "X-Arguments": repr(sorted(kong.request.get_query().items())),
            "X-Seen": repr(headers.get("x-seen")),
            "X-Joined": repr(kong.request.get_header("x-seen")),
            "X-Config": repr(sorted(key for key in self.config if key not in {"act", "log"})),
        }
        kong.service.request.set_headers(told)

    def fail_first(self, kong: Any) -> None:
        raise RuntimeError("before the first PDK call")

    def fail_later(self, kong: Any) -> None:
        self.inject(kong)
        raise RuntimeError("after the first PDK call")

    def bad_argument(self, kong: Any) -> None:
        kong.service.request.set_header("Authorization", {"a": "table"})

    def unknown_method(self, kong: Any) -> None:
        kong.service.request.set_header("X-Given", repr(kong.no.such_method()))

    def leave_bare(self, kong: Any) -> None:
        kong.response.exit(403, None, {"X-Why": "no"})

    def leave_full(self, kong: Any) -> None:
        kong.response.exit(403, '{"error":"caller_denied"}', {"X-Why": "no"})

    def slow(self, kong: Any) -> None:
        self.inject(kong)
        time.sleep(9)  # much longer than the tests' Kong waits for an answer
        kong.log.notice("late")
