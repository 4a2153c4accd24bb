#!/bin/sh
# The endpoint of a Stripe-like sender: configure.sh RECEIVER_URL SECRET_FILE
set -eu
posthaste endpoints create --tenant stripe-like --uid billing --url "$1" --secret-file "$2" \
    --scheme stripe --types 'invoice.*' --types customer.subscription.deleted
