#!/bin/sh
# Usage: install.sh PYTHON ARGUMENTS...
# Run `pip install ARGUMENTS` for this Python with uv, which is much faster, or with pip if uv is missing or fails.
set -eu
python=$1
shift
log=build/uv.log
mkdir -p build

if "$python" -m uv --version >/dev/null 2>&1; then
    : >"$log"
    # Try the system's certificates, which a proxy that inspects TLS requires, then uv's own, because an image may lack
    # ca-certificates.
    # Compiling takes about 9 s. Without it, every Airflow process spends 2 to 3 s compiling its imports, at least once,
    # or always if PYTHONDONTWRITEBYTECODE is set.
    for system_certs in ${UV_SYSTEM_CERTS:-true false}; do
        if UV_SYSTEM_CERTS=$system_certs "$python" -m uv --quiet pip install --compile-bytecode \
            --python "$python" "$@" 2>>"$log"; then
            exit 0
        fi
    done
    echo "uv failed (see $log); trying pip" >&2
fi
exec "$python" -m pip install -qq "$@"
