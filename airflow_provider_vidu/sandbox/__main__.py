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
    """Return the command-line parser."""
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
    out.add_argument("--queue", type=float, default=4.0, help="sandbox seconds in the queue (default: %(default)s)")
    out.add_argument("--duration", type=float, default=20.0, help="sandbox seconds of running (default: %(default)s)")
    out.add_argument("--clip-seconds", type=float, default=2.0, help="length of the videos (default: %(default)s)")
    out.add_argument(
        "--url-lifetime", type=float, default=Settings.url_lifetime, help="sandbox seconds that a result's URL is valid"
    )
    out.add_argument("--cover-lifetime", type=float, default=Settings.cover_lifetime, help="the same for a cover's URL")
    out.add_argument("--balance", type=int, default=Settings.balance, help="initial credits (default: %(default)s)")
    out.add_argument("--price", type=int, default=Settings.price, help="credits of a create (default: %(default)s)")
    out.add_argument("--seed", type=int, help="make ids and signatures repeatable")
    _add_choices(out)
    out.add_argument("--tls-cert", help="PEM file of a certificate, to serve https")
    out.add_argument("--tls-key", help="PEM file of the certificate's key")
    out.add_argument("--quiet", action="store_true", help="print only the ready line")
    out.add_argument("--ledger", help="file to append creates, refunds and downloads to, as JSON lines")
    return out


def _add_choices(out: argparse.ArgumentParser) -> None:
    group = out.add_argument_group("behaviour that the vendor's pages leave open")
    group.add_argument(
        "--concurrency", type=int, default=Settings.concurrency, help="running generations (default: %(default)s)"
    )
    group.add_argument("--no-concurrency-limit", action="store_const", const=None, dest="concurrency", help="no limit")
    group.add_argument(
        "--gateway-concurrency", type=int, help="unfinished generations at the gateway (default: no limit)"
    )
    group.add_argument(
        "--gateway-refusal", default=Settings.gateway_refusal, help="the answer beyond that (default: %(default)s)"
    )
    group.add_argument(
        "--gateway-prompt-limit",
        type=int,
        default=Settings.gateway_prompt_limit,
        help="longest prompt at the service behind the gateway, in characters (default: %(default)s)",
    )
    group.add_argument(
        "--no-gateway-prompt-limit", action="store_const", const=None, dest="gateway_prompt_limit", help="any length"
    )
    group.add_argument("--models", default=Settings.models, help="documented, any, or a comma-separated list")
    group.add_argument("--list-payload", action="store_true", help="include payload and err_code in listed tasks")
    group.add_argument("--bare-keys", action="store_true", help="accept keys without an authorization scheme")
    group.add_argument("--allow-host", action="append", default=[], help="further name accepted in the Host header")
    for name, values in CHOICES.items():
        group.add_argument("--" + name.replace("_", "-"), choices=values, default=values[0])


def _settings(args: argparse.Namespace) -> Settings:
    models = (
        args.models if args.models in (ANY_MODEL, DOCUMENTED_MODELS) else tuple(map(str.strip, args.models.split(",")))
    )
    named = {"keys": args.key or Settings.keys, "models": models, "allowed_hosts": args.allow_host}
    return Settings(**{name: named[name] if name in named else getattr(args, name) for name in Settings.names()})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sandbox until SIGTERM or SIGINT; return the exit status: 0, or 2 if it cannot start."""
    args = parser().parse_args(argv)
    _allow_many_connections()
    try:
        with contextlib.ExitStack() as stack:
            ledger = stack.enter_context(Path(args.ledger).open("a", encoding="utf-8")) if args.ledger else None
            return asyncio.run(_serve(args, ledger))
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError, ValueError) as error:  # a port out of range overflows
        print(f"The sandbox cannot start: {_reason(error, args)}.", file=sys.stderr)
        return CANNOT_START


def _reason(error: Exception, args: argparse.Namespace) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"port {args.port} on {args.host} is in use; choose another one with --port (0: any free port)"
    return str(error)


async def _serve(args: argparse.Namespace, ledger: TextIO | None) -> int:
    if bool(args.tls_cert) != bool(args.tls_key):
        raise ValueError("--tls-cert and --tls-key must be given together")
    settings = _settings(args)
    core = Core(settings, sink=_line_writer(ledger))
    tls = tls_context(args.tls_cert, args.tls_key) if args.tls_cert else None
    server = Server(core, tls=tls, observer=None if args.quiet else _print_request)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Event loops on Windows have no signal handlers; KeyboardInterrupt ends the sandbox there.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    url = await server.start(args.host, args.port)
    print(f"Vidu sandbox ready at {url} (dialects vidu-native and ent-v2, key {settings.keys[0]})", flush=True)
    await stopping.wait()
    await server.stop()
    return 0


def _line_writer(ledger: TextIO | None) -> Callable[[dict[str, Any]], None]:
    def write(entry: dict[str, Any]) -> None:
        if ledger is not None:
            ledger.write(json.dumps(entry) + "\n")
            ledger.flush()

    return write


def _print_request(method: str, target: str, status: int) -> None:
    print(f"{method} {target.partition('?')[0]} {status or 'cut'}", flush=True)


def _allow_many_connections() -> None:
    """Raise the soft limit on open files to the hard one, because thousands of clients may connect."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such module on Windows
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
