#!/bin/sh
# The endpoint of a Standard Webhooks sender: configure.sh RECEIVER_URL SECRET_FILE
set -eu
posthaste endpoints create --tenant standard-webhooks --uid billing --url "$1" --secret-file "$2" \
    --types 'invoice.*'
