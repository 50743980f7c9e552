"""Azurite, Microsoft's emulator of Azure Blob Storage: private, on loopback, in memory, stopped without a trace.

``python scripts/azurite.py`` installs it with npm into ``build/azurite``; nothing is installed on the system. ::

    with Azurite(folder) as azurite:
        print(azurite.connection_string)
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from processes import LOCALHOST, Component, Guard, free_port, tail, wait_for

ROOT: Final = Path(__file__).resolve().parent.parent
VERSION: Final = "3.37.0"
FOLDER: Final = ROOT / "build" / "azurite"
NPM_CACHE: Final = ROOT / "build" / "npm-cache"
_BLOB_SERVICE: Final = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
#: The account that every Azurite has; its key is printed in Microsoft's manual and opens nothing else.
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_SECONDS: Final = 60


class AzuriteError(RuntimeError):
    """Azurite cannot be found or does not start; the message says what to do."""


def install_azurite() -> None:
    """Install the pinned Azurite below ``build/azurite``, unless it is there.

    :raises AzuriteError: when there is no npm, or it fails.
    """
    if _BLOB_SERVICE.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise AzuriteError("Azurite needs node and npm: install them (Debian: apt-get install npm).")
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
    # Its cache stays in this folder, too.
    environment = {**os.environ, "npm_config_cache": str(NPM_CACHE)}
    if subprocess.run([*command, f"azurite@{VERSION}"], env=environment, check=False).returncode != 0:
        raise AzuriteError("npm could not install Azurite; its messages stand above.")


class Azurite:
    """A running Azurite.

    :param folder: where its log goes.
    :raises AzuriteError: when it is not installed or does not start.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "azurite.log"
        self._port = 0
        self._component: Component | None = None
        self._guard: Guard | None = None

    @property
    def url(self) -> str:
        """Where the account's containers are."""
        return f"http://{LOCALHOST}:{self._port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """What Azure's clients connect with."""
        return self.connection_string_with(KEY)

    def connection_string_with(self, key: str) -> str:
        """Return the connection string with a key of one's own."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={self.url};"

    def __enter__(self) -> Self:
        node = shutil.which("node")
        if node is None or not _BLOB_SERVICE.exists():
            raise AzuriteError("Azurite is not installed here: run `python scripts/azurite.py` (it needs npm).")
        self._port = free_port()
        options = ["--blobHost", LOCALHOST, "--blobPort", str(self._port), "--inMemoryPersistence", "--silent"]
        # The clients may speak a newer version of the API than the emulator; nothing is reported to anybody.
        options += ["--skipApiVersionCheck", "--loose", "--disableTelemetry"]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [node, str(_BLOB_SERVICE), *options], cwd=self._log.parent, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._component = Component("azurite", process, self._log)
        self._guard = Guard()
        self._guard.watch(process)
        if not wait_for(lambda: self._listens() or process.poll() is not None, START_SECONDS) or process.poll():
            self.__exit__()
            raise AzuriteError(f"Azurite did not start:\n{tail(self._log)}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._component is not None:
            self._component.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._component.process.wait(5)
            self._component.kill()
        if self._guard is not None:
            self._guard.dismiss()

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection((LOCALHOST, self._port), 1):
            return True
        return False


if __name__ == "__main__":
    try:
        install_azurite()
    except AzuriteError as error:
        sys.exit(str(error))
