#!/bin/sh
# The endpoint of a GitHub-like sender: configure.sh RECEIVER_URL SECRET_FILE
set -eu
posthaste endpoints create --tenant github-like --uid hello-world --url "$1" --secret-file "$2" \
    --scheme github --types push --types pull_request --types deployment --verify ping
