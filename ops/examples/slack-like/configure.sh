#!/bin/sh
# The endpoint of a Slack-like sender: configure.sh RECEIVER_URL SECRET_FILE
set -eu
posthaste endpoints create --tenant slack-like --uid bot --url "$1" --secret-file "$2" \
    --scheme slack --types 'message.*' --types app_mention --retry-policy slack --verify challenge
