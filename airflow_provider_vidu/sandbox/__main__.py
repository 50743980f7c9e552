"""``python -m airflow_provider_vidu.sandbox``: the sandbox on the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_vidu.sandbox.core import Core
from airflow_provider_vidu.sandbox.faults.refusals import REFUSALS
from airflow_provider_vidu.sandbox.runner import tls_context
from airflow_provider_vidu.sandbox.server.app import Server
from airflow_provider_vidu.sandbox.settings import ANY_MODEL, CHOICES, DOCUMENTED_MODELS, Settings

#: Exit status when the sandbox cannot start, the same as argparse's for wrong arguments.
CANNOT_START = 2


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    out = argparse.ArgumentParser(
        prog="python -m airflow_provider_vidu.sandbox",
        description="A local Vidu: both API dialects on one port, real videos, faults on demand.",
        epilog="Prompts may hold [fail], [fail:CODE], [refuse:NAME], [slow], [nourl] or [unknown-state]; "
        f"NAME is one of {', '.join(REFUSALS)}.",
    )
    out.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    out.add_argument("--port", type=int, default=8787, help="port, 0 for any free one (default: %(default)s)")
    out.add_argument("--key", action="append", help="accepted API key, repeatable (default: sandbox-key)")
    out.add_argument("--speed", type=float, default=1.0, help="sandbox seconds per second (default: %(default)s)")
    out.add_argument("--queue", type=float, default=4.0, help="sandbox seconds of waiting (default: %(default)s)")
    out.add_argument("--duration", type=float, default=20.0, help="sandbox seconds of running (default: %(default)s)")
    out.add_argument("--clip-seconds", type=float, default=2.0, help="length of the videos (default: %(default)s)")
    out.add_argument(
        "--url-lifetime", type=float, default=Settings.url_lifetime, help="sandbox seconds, of a result's URL"
    )
    out.add_argument("--cover-lifetime", type=float, default=Settings.cover_lifetime, help="of a cover's URL")
    out.add_argument("--balance", type=int, default=Settings.balance, help="at the start (default: %(default)s)")
    out.add_argument("--price", type=int, default=Settings.price, help="credits of a create (default: %(default)s)")
    out.add_argument("--seed", type=int, help="makes ids and signatures the same at every start")
    _add_choices(out)
    out.add_argument("--tls-cert", help="PEM file of a certificate: serve https")
    out.add_argument("--tls-key", help="PEM file of the certificate's key")
    out.add_argument("--quiet", action="store_true", help="print nothing but the ready line")
    out.add_argument("--ledger", help="file to which creates, refunds and downloads are appended as JSON lines")
    return out


def _add_choices(out: argparse.ArgumentParser) -> None:
    """Add the settings that choose between the behaviours that the vendor's pages leave open."""
    group = out.add_argument_group("how strict it is, where the vendor's pages leave it open")
    group.add_argument("--concurrency", type=int, default=Settings.concurrency, help="at once (default: %(default)s)")
    group.add_argument("--no-concurrency-limit", action="store_const", const=None, dest="concurrency", help="no limit")
    group.add_argument("--gateway-concurrency", type=int, help="unfinished ones that the gateway takes (default: all)")
    group.add_argument("--gateway-refusal", default=Settings.gateway_refusal, help="beyond them (default: %(default)s)")
    group.add_argument(
        "--gateway-prompt-limit",
        type=int,
        default=Settings.gateway_prompt_limit,
        help="longest prompt that the service behind the gateway takes, in characters (default: %(default)s)",
    )
    group.add_argument(
        "--no-gateway-prompt-limit", action="store_const", const=None, dest="gateway_prompt_limit", help="any length"
    )
    group.add_argument("--models", default=Settings.models, help="documented, any, or names separated by commas")
    group.add_argument("--list-payload", action="store_true", help="entries of the list hold payload and err_code")
    group.add_argument("--bare-keys", action="store_true", help="accept keys without an authorization scheme")
    group.add_argument("--allow-host", action="append", default=[], help="name that the Host header may hold")
    for name, values in CHOICES.items():
        group.add_argument("--" + name.replace("_", "-"), choices=values, default=values[0])


def _settings(args: argparse.Namespace) -> Settings:
    models = args.models if args.models in (ANY_MODEL, DOCUMENTED_MODELS) else tuple(args.models.split(","))
    named = {"keys": args.key or Settings.keys, "models": models, "allowed_hosts": args.allow_host}
    return Settings(**{name: named[name] if name in named else getattr(args, name) for name in Settings.names()})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sandbox until SIGTERM or SIGINT and return the exit status: 0, or 2 when it cannot start."""
    args = parser().parse_args(argv)
    _allow_many_connections()
    try:
        with contextlib.ExitStack() as stack:
            ledger = stack.enter_context(Path(args.ledger).open("a", encoding="utf-8")) if args.ledger else None
            return asyncio.run(_serve(args, ledger))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        print(f"The sandbox cannot start: {_reason(error, args)}.", file=sys.stderr)
        return CANNOT_START


def _reason(error: Exception, args: argparse.Namespace) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {args.port} on {args.host} is taken, choose another with --port (0 takes any free one)"
    return str(error)


async def _serve(args: argparse.Namespace, ledger: TextIO | None) -> int:
    if bool(args.tls_cert) != bool(args.tls_key):
        raise ValueError("--tls-cert and --tls-key belong together")
    settings = _settings(args)
    core = Core(settings, sink=_line_writer(ledger))
    tls = tls_context(args.tls_cert, args.tls_key) if args.tls_cert else None
    server = Server(core, tls=tls, observer=None if args.quiet else _print_request)
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    url = await server.start(args.host, args.port)
    print(f"Vidu sandbox ready at {url} (dialects vidu-native and ent-v2, key {settings.keys[0]})", flush=True)
    await stopping.wait()
    await server.stop()
    return 0


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Windows has no signal handlers in event loops; KeyboardInterrupt ends the sandbox there.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopping.set)


def _line_writer(ledger: TextIO | None) -> Callable[[dict[str, Any]], None]:
    def write(entry: dict[str, Any]) -> None:
        if ledger is not None:
            ledger.write(json.dumps(entry) + "\n")
            ledger.flush()

    return write


def _print_request(method: str, target: str, status: int) -> None:
    print(f"{method} {target.partition('?')[0]} {status or 'cut'}", flush=True)


def _allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard one: thousands of pollers hold a connection each."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such module on Windows
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
