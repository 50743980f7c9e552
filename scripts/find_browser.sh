#!/bin/sh
# Print the path of a Chromium. With --install, as root on Debian, install Debian's if there is none: unlike the builds
# of browser drivers, it plays H.264.
set -eu

find_chromium() {
    for name in ${CHROMIUM:-} chromium chromium-browser google-chrome-stable google-chrome chrome; do
        if command -v "$name"; then
            return 0
        fi
    done
    return 1
}

if find_chromium; then
    exit 0
fi
if [ "${1:-}" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Debian's Chromium for the browser tests" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends chromium >&2
    find_chromium && exit 0
fi
echo "No Chromium found. Install one (Debian: apt-get install chromium), or set CHROMIUM to its path." >&2
exit 1
