#!/bin/sh
# Print the path of a Python that can create the virtual environment, or say what to do.
# If $PYTHON is set, it is the only candidate.
set -eu

# Run each candidate: a name on the PATH may be a stub, and some systems ship Python without venv.
probe='
import sys
if sys.version_info < (3, 11):
    sys.exit(3)
try:
    import ensurepip, sqlite3, ssl, venv
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(4)
print(sys.executable)
'

lacking=''
for name in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    command -v "$name" >/dev/null 2>&1 || continue
    if path=$("$name" -c "$probe" 2>/dev/null); then
        echo "$path"
        exit 0
    elif [ $? -eq 4 ]; then
        lacking="$name"
    fi
done

{
    if [ -n "$lacking" ]; then
        echo "$lacking is new enough but lacks the modules venv, ensurepip, sqlite3 or ssl."
        echo "Install them (on Debian and Ubuntu: the package $lacking-venv), or choose another Python:"
    elif [ -n "${PYTHON:-}" ]; then
        echo "PYTHON=$PYTHON does not run or is older than 3.11. Choose Python 3.11 or newer:"
    else
        echo "No Python 3.11 or newer was found on the PATH. Install one, or give its path:"
    fi
    echo "    make setup PYTHON=/path/to/python3.11"
} >&2
exit 1
