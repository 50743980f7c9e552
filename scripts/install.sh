#!/bin/sh
# Usage: install.sh PYTHON ARGUMENTS...
# Does `pip install ARGUMENTS` for this Python: with uv, which is much faster, or with pip if uv is missing or fails.
set -eu
python=$1
shift
log=build/uv.log
mkdir -p build

if "$python" -m uv --version >/dev/null 2>&1; then
    : >"$log"
    # uv trusts either the system's certificates or its own. Behind a proxy that inspects TLS only the system's work;
    # an image without ca-certificates has none.
    # Compiling takes about 9 s. Without it, every Airflow process spends 2 to 3 s on compiling what it imports: always
    # where PYTHONDONTWRITEBYTECODE is set, and once elsewhere.
    for system_certs in ${UV_SYSTEM_CERTS:-true false}; do
        if UV_SYSTEM_CERTS=$system_certs "$python" -m uv --quiet pip install --compile-bytecode \
            --python "$python" "$@" 2>>"$log"; then
            exit 0
        fi
    done
    echo "uv failed (see $log); trying pip" >&2
fi
exec "$python" -m pip install -qq "$@"
