#!/usr/bin/env bash
# Every way to ask, with curl. Start the server first: gunicorn app:asgi (in this folder), then: bash curl.sh
set -euo pipefail
address=${1:-http://127.0.0.1:8000}

echo "# documents in, documents out, in order; parameters go along"
curl -sS --json '{"data": [{"text": "hello"}, {"text": "world"}]}' "$address/default"; echo

echo "# a stream: one event a document, as it is made"
curl -sSN --json '{"data": {"text": "one two three"}}' "$address/stream"

echo "# what is wrong is said by name"
curl -sS --json '{"data": [{"txt": "hello"}]}' "$address/default"; echo

echo "# no longer than two seconds, please"
curl -sS -H 'X-Request-Timeout: 2' --json '{"data": {"text": "hello"}}' "$address/default"; echo

echo "# is it ready, and what does it offer?"
curl -sS "$address/-/ready"; echo
curl -sS "$address/openapi.json" | cut -c 1-80
