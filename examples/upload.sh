#!/usr/bin/env bash
# A picture, sent with curl. Start the server first: gunicorn pictures:asgi (in this folder), then: bash upload.sh
set -euo pipefail
address=${1:-http://127.0.0.1:8000}
cd "$(dirname "${BASH_SOURCE[0]}")"

echo "# a form: each part is a field by its name"
curl -sS "$address/sizes" -F image=@mark.png -F caption='a mark'; echo

echo "# several files are several documents"
curl -sS "$address/sizes" -F image=@mark.png -F image=@upload.sh -F caption=one -F caption=two; echo

echo "# the file alone, decoded to a tensor"
curl -sS "$address/brightness" -H 'content-type: image/png' --data-binary @mark.png; echo

echo "# what is no picture is said with its place"
curl -sS "$address/brightness" -F pixels=@upload.sh; echo
