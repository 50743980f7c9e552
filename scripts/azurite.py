"""Azurite, Microsoft's emulator of Azure Blob Storage: private, on loopback, in memory.

``python scripts/azurite.py`` installs it with npm into ``build/azurite``, not on the system. ::

    with Azurite(folder) as azurite:
        print(azurite.connection_string)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from processes import LOCALHOST
from services import Service, ServiceError

ROOT: Final = Path(__file__).resolve().parent.parent
VERSION: Final = "3.37.0"
FOLDER: Final = ROOT / "build" / "azurite"
NPM_CACHE: Final = ROOT / "build" / "npm-cache"
_BLOB_SERVICE: Final = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
#: The account of every Azurite; its key is public, in Microsoft's manual, and useless elsewhere.
ACCOUNT: Final = "devstoreaccount1"
KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def install_azurite() -> None:
    """Install the pinned Azurite below ``build/azurite`` unless it is installed.

    :raises ServiceError: if npm is missing or fails.
    """
    if _BLOB_SERVICE.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise ServiceError("Azurite needs node and npm. Install them (Debian: apt-get install npm).")
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
    environment = {**os.environ, "npm_config_cache": str(NPM_CACHE)}
    if subprocess.run([*command, f"azurite@{VERSION}"], env=environment, check=False).returncode != 0:
        raise ServiceError("npm failed to install Azurite; see its messages above.")


class Azurite(Service):
    """A running Azurite.

    :param folder: for its log.
    :raises ServiceError: if it is not installed or does not start.
    """

    name = "azurite"

    @property
    def url(self) -> str:
        """The URL of the account."""
        return f"http://{LOCALHOST}:{self.port}/{ACCOUNT}"

    @property
    def connection_string(self) -> str:
        """The connection string for Azure's clients."""
        return self.connection_string_with(KEY)

    def connection_string_with(self, key: str) -> str:
        """Return the connection string with another key."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={self.url};"

    def _launch(self) -> None:
        node = shutil.which("node")
        if node is None or not _BLOB_SERVICE.exists():
            raise ServiceError("Azurite is not installed. Run `python scripts/azurite.py` (it needs npm).")
        options = ["--blobHost", LOCALHOST, "--blobPort", str(self.port), "--inMemoryPersistence", "--silent"]
        # The clients may use a newer API version than the emulator.
        options += ["--skipApiVersionCheck", "--loose", "--disableTelemetry"]
        self._spawn([node, str(_BLOB_SERVICE), *options], {}, cwd=self.folder)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((LOCALHOST, self.port), 1):
            return True
        return False


if __name__ == "__main__":
    try:
        install_azurite()
    except ServiceError as error:
        sys.exit(str(error))
