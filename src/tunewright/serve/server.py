"""The process that listens: an address, and an end that lets running answers finish."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from tunewright.errors import InputError, MissingExtra
from tunewright.infer.live import Fleet
from tunewright.signals import hearing
from tunewright.text import _

HELP = "tunewright serve --help"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
BACKLOG = 2048


def missing_package() -> MissingExtra | None:
    """What keeps this installation from serving."""
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            return MissingExtra(package.replace("_", "-"), "serve", _("the endpoint"))
    return None


def require_packages() -> None:
    """Raises MissingExtra before anything is loaded."""
    if (missing := missing_package()) is not None:
        raise missing


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_key(host: str, has_key: bool) -> None:
    """Raises InputError for an address that others can reach, without a key that keeps them out."""
    if not has_key and not is_loopback(host):
        raise InputError(
            _("{host} can be reached from other machines, and no key is asked for", host=host), where="--host",
            do=_("make a key, and give its file with --key-file"),
            command="tunewright serve --new-key NAME --key-file keys.json",
        )  # fmt: skip


def hosts_of(host: str, has_key: bool) -> frozenset[str] | None:
    """The names under which a server without a key may be asked: a page of another site whose name was made to mean
    this machine could read its answers otherwise. None for any."""
    shown = f"[{host}]" if ":" in host else host
    return None if has_key else LOOPBACK | {shown.lower()}


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a port that is taken is known before a model is loaded. Raises InputError."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error) from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _refused(host, port, error) from None
    made.set_inheritable(False)
    return made


def _refused(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        what, do = _("port {port} is taken", port=port), _("take another one, or end the program that has it")
        return InputError(what, where=f"{host}:{port}", do=do, command=f"tunewright serve --port {port + 1}")
    if error.errno == errno.EACCES:
        what, do = _("port {port} is not allowed", port=port), _("take one above 1023")
        return InputError(what, where=f"{host}:{port}", do=do, command="tunewright serve --port 8000")
    what = _("cannot listen there: {why}", why=error.strerror or error)
    return InputError(what, where=f"{host}:{port}", do=_("give an address of this machine"), command=HELP)


def url_of(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(fleet: Fleet, application: Callable[[], object], bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes what runs; a second Ctrl-C does not wait. The first model is loaded
    before ``ready`` is called, so that one that cannot be loaded is an error and no server."""
    asyncio.run(_serve(fleet, application, bound, ready))


async def _serve(
    fleet: Fleet, application: Callable[[], object], bound: socket.socket, ready: Callable[[], None]
) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """As uvicorn does, but a server that was told to end and did is no failure."""
            with hearing(dict.fromkeys((signal.SIGINT, signal.SIGTERM), self.handle_exit)):
                yield

    cards = fleet.cards()
    app = application()
    try:
        await fleet.get(cards[0].name)
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning", access_log=False, server_header=False, lifespan="off", loop="asyncio", http="h11",
            timeout_keep_alive=30, timeout_graceful_shutdown=None,
        )  # fmt: skip
        ready()
        await Server(config).serve(sockets=[bound])
    finally:
        await fleet.close()
