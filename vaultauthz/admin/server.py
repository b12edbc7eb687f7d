"""The admin server: sockets and threads, both bounded."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import time
from collections import Counter
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, Final

from vaultauthz.admin.access import Guard
from vaultauthz.admin.connections import Handler, Patient, Seats
from vaultauthz.admin.routes import AdminRoutes
from vaultauthz.admin.view import AdminView
from vaultauthz.config.values import Listen, ServerTls
from vaultauthz.listening import NO_SOCKET, SERVED, Address, ListenError, SocketName
from vaultauthz.server_tls import FollowedTls, UnusableError

CONNECTIONS: Final = 128  # at once; each has a thread
_ENDING: Final = 32  # threads besides, of connections that were hung up on and are not over yet
_TAG: Final = "a"  # of its passing name: the door's socket may be in the same folder
QUIET: Final = 5.0  # seconds without a byte
WHOLE: Final = 10.0  # seconds for one request, from waiting for it to its answer
SOCKET_MODE: Final = 0o600  # whoever may open it may rotate and revoke
_POLL: Final = 0.1
_ROOM: Final = 2.0  # seconds that a newcomer waits for one of those threads to end

_log = logging.getLogger(__name__)
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Admin:
    """Serves ``view`` at ``listen.admin`` between ``start`` and ``stop``.

    ``quiet`` and ``whole`` are the patience with a client, in seconds: without
    a byte, and for one request.
    """

    def __init__(
        self, listen: Listen, view: AdminView, *, quiet: float = QUIET, whole: float = WHOLE
    ) -> None:
        self._listen = listen
        self._view = view
        self._patience = quiet, whole
        self._server: AdminServer | None = None
        self._thread: Thread | None = None
        self._name: SocketName | None = None
        self.tls: FollowedTls | None = None  # once started, where it has TLS
        self._address = Address()

    @property
    def address(self) -> str:
        """Where it listens, with the port that the system chose if it was to choose."""
        return str(self._address)

    @property
    def refused(self) -> dict[str, int]:
        """What it has refused since the start, by reason."""
        return self._server.refused if self._server else {}

    def start(self, given: socket.socket | None = None) -> None:
        """Listen, and serve from threads of its own; on the socket that is ``given``, if one is.

        Its name stays whoever's it is, until ``adopt``.

        Raises:
            ListenError: the address, token file or certificates are not usable.
        """
        address = _parsed(self._listen.admin)
        routes = AdminRoutes(self._view, Guard(address, self._listen.admin_token_file))
        tls = Terminator(self._listen.admin_tls) if self._listen.admin_tls else None
        sock, self._name = (given, None) if given else _bound(address)
        if not (address.path or address.port):
            address = Address(host=address.host, port=sock.getsockname()[1])
        self._address = address
        self._server = AdminServer(sock, routes, tls, self._patience)
        self._thread = Thread(
            target=self._server.serve_forever, args=(_POLL,), name="admin", daemon=True
        )
        self._thread.start()
        if tls:
            self.tls = tls.files
            self.tls.start()

    @property
    def listener(self) -> socket.socket | None:
        """What listens, once it does."""
        return self._server.socket if self._server else None

    def adopt(self) -> None:
        """The socket that was given is ours, with its name."""
        if self._name is None and self._address.path:
            self._name = SocketName(self._address.path, _TAG)
            self._name.adopt()

    def leave(self) -> None:
        """As ``stop``, but the address is another server's by now."""
        self._name = None
        self.stop()

    def stop(self) -> None:
        """Hang up on everybody and remove the socket file; takes less than a second."""
        if self._server is None or self._thread is None:
            return
        if self.tls:
            self.tls.stop()
        if self._name:
            self._name.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None


def see_that_it_fits(given: socket.socket, listen: Listen) -> None:
    """See that a socket of systemd's listens at ``listen.admin``. Raises ListenError."""
    address = _parsed(listen.admin)
    found = given.getsockname()
    same = found == str(address.path) if address.path else found[:2] == (address.host, address.port)
    if not same:
        raise ListenError(
            f"listen.admin: systemd has opened {found} under the name admin; let ListenStream= and "
            f"listen.admin, {address}, be the same"
        )


def rehearse(listen: Listen) -> None:
    """See whether one could start at ``listen.admin`` now; nothing is left of it.

    Raises:
        ListenError: it could not.
    """
    address = _parsed(listen.admin)
    Guard(address, listen.admin_token_file)
    sock, name = _bound(address)
    sock.close()
    if name:
        name.release()


def _parsed(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as exc:
        raise ListenError(f"listen.admin: {exc}") from None


def _bound(address: Address) -> tuple[socket.socket, SocketName | None]:
    """A socket that does not listen yet, and its name, which leads to it."""
    name = SocketName(address.path, _TAG) if address.path else None
    if name:
        _see_that_it_is_free(name)
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if name:
            name.bind(sock)
            name.publish(SOCKET_MODE)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
    except OSError as exc:
        sock.close()
        reason = exc.strerror or str(exc)  # a path too long for a socket has no errno
        raise ListenError(f"listen.admin: {address}: {reason}") from exc
    return sock, name


def _see_that_it_is_free(name: SocketName) -> None:
    try:
        found = name.in_the_way()
    except OSError:
        found = SERVED  # by one that is too busy, or not for us
    if found == NO_SOCKET:
        raise ListenError(f"listen.admin: {name.path} is there and is no socket")
    if found == SERVED:
        raise ListenError(f"listen.admin: {name.path} is in use by another process")


class AdminServer(ThreadingMixIn, Patient):
    """A thread for each connection; over the limit, a slow one makes room for the next."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(
        self,
        sock: socket.socket,
        routes: AdminRoutes,
        tls: Terminator | None,
        patience: tuple[float, float],
    ) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()  # the base class has made one that nobody asked for
        self.socket = sock
        # While one server takes over from another both have it: who comes too late must not wait.
        sock.setblocking(False)
        self.routes = routes
        self._tls = tls
        self._quiet, self._whole = patience
        self._seats = Seats(CONNECTIONS)
        self._refused, self._counting = Counter[str](), Lock()
        self._spare = BoundedSemaphore(CONNECTIONS + _ENDING)
        self.server_activate()

    def begin(self, connection: socket.socket) -> None:
        self._seats.begin(connection, time.monotonic(), self._whole)

    def work(self, connection: socket.socket) -> None:
        self._seats.work(connection, time.monotonic())

    def send(self, connection: socket.socket) -> None:
        self._seats.send(connection, time.monotonic())

    def refuse(self, word: str) -> None:
        with self._counting:
            self._refused[word] += 1

    @property
    def refused(self) -> dict[str, int]:
        """How many requests were refused, by reason; and connections that were slow, or one too many."""
        with self._counting:
            return {"slow": self._seats.slow, **self._refused}

    def service_actions(self) -> None:
        """Hang up on clients that take too long; runs every ``_POLL`` seconds."""
        self._seats.end_late(time.monotonic())

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give the connection a seat and a thread, whoever must go for it."""
        address = client_address[0] if self.socket.family != socket.AF_UNIX else ""
        # Who was hung up on ends at once, but on a starved machine its thread has to get a turn.
        if self._spare.acquire(timeout=_ROOM):
            if self._seats.take(request, address, time.monotonic(), self._whole):
                try:
                    super().process_request(request, client_address)
                except RuntimeError:  # the system has no thread left
                    self._end(request)
                return
            self._spare.release()
        self.refuse("busy")
        with contextlib.suppress(OSError):
            request.settimeout(0)
            if self._tls is None:
                request.send(_BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection to its end."""
        connection = request
        try:
            connection.settimeout(self._quiet)
            if self._tls:
                connection = self._tls.wrap(request)
                self._seats.wrapped(request, connection)
                connection.do_handshake()
            self.finish_request(connection, client_address)
        except OSError:
            pass  # slow, gone, or no TLS: nobody to tell
        except Exception as exc:  # noqa: BLE001 - one connection must not end the server
            _log.error("admin: a connection failed: %s", type(exc).__name__)
        finally:
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        self._seats.leave(connection)
        self.shutdown_request(connection)
        self._spare.release()

    def server_close(self) -> None:
        """Stop listening and hang up on everybody."""
        super().server_close()
        self._seats.end_late()


class Terminator:
    """Wraps accepted connections; files that change are read again for the next one.

    Raises:
        ListenError: at the start a file cannot be read, or key and certificate don't fit.
    """

    def __init__(self, files: ServerTls) -> None:
        try:
            self.files = FollowedTls("listen.admin_tls", files)
        except UnusableError as exc:
            raise ListenError(f"listen.admin_tls: {exc}") from exc

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """The connection as TLS; the handshake is the caller's to ask for."""
        self.files.look()
        return self.files.identity.context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
