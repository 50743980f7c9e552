#!/bin/sh
# Usage: install.sh PYTHON ARGUMENTS...: `pip install ARGUMENTS` for this Python, by uv, or by pip where uv cannot.
set -eu
python=$1
shift
mkdir -p build
if "$python" -m uv --quiet pip install --python "$python" "$@" 2> build/uv.log; then
    exit 0
fi
echo "uv could not install it (see build/uv.log): trying pip" >&2
exec "$python" -m pip install -qq "$@"
