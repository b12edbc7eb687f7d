# ruff: noqa: INP001  a script, no package
"""Ask vaultauthz's admin socket for a page; status 0 if the answer is 200: `healthcheck.py SOCKET PAGE`."""

import http.client
import socket
import sys

TIMEOUT_SECONDS = 2


class Unix(http.client.HTTPConnection):
    """HTTP over a unix socket; the host is the socket's path."""

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(self.host)


def main(path: str, page: str) -> int:
    """The exit status: 0 if the page answers 200, else 1 with the reason on standard output."""
    connection = Unix(path)
    try:
        connection.request("GET", page, headers={"Host": "localhost"})
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.status} {answer.read(1000).decode(errors='replace')}\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"{path}: {error}\n")
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
