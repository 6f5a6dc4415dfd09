#!/usr/bin/env bash
# One virtual environment a peer, made once: setup_peers.sh [--clear] [NAME...]
# They lie in $JINA_ASGI_BENCH, by default ~/.cache/jina-asgi-bench. Needs Python 3.11: Jina's dependencies end there.
set -euo pipefail

root=${JINA_ASGI_BENCH:-${XDG_CACHE_HOME:-$HOME/.cache}/jina-asgi-bench}
python=${PYTHON:-python3.11}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "$python is no Python 3.11, which Jina needs: install it, or name one in PYTHON" >&2
  exit 1
}

declare -A peers=(
  # Jina's last release does not start on what its open requirements resolve to today. Its HTTP server runs on these two
  # sets: the first echoes faster, the second reads tensors eight times faster. (uv, as pip finds no set that fits.)
  [jina]="jina==3.34.0 docarray==0.41.0 setuptools<81 pydantic==2.9.2 fastapi==0.110.3 starlette==0.37.2
          protobuf==5.29.6 opentelemetry-api==1.45.1 opentelemetry-instrumentation==0.66b1 numpy==2.4.6"
  [jina-pydantic1]="jina==3.34.0 docarray==0.41.0 setuptools<81 pydantic==1.10.27 fastapi==0.125.0 grpcio==1.68.0
          protobuf==5.29.6 opentelemetry-api==1.45.1 opentelemetry-instrumentation==0.66b1 numpy==2.4.6"
  # As Jina was before docarray 0.30; for tests/interop, and made where it is named.
  [jina-docarray021]="jina==3.34.0 docarray==0.21.0 setuptools<81 pydantic==1.10.27 fastapi==0.125.0 grpcio==1.68.0
          protobuf==5.29.6 opentelemetry-api==1.45.1 opentelemetry-instrumentation==0.66b1 numpy==2.4.6"
  [mosec]="mosec==0.9.8 numpy==2.4.6"
  [litserve]="litserve==0.2.19 numpy==2.4.6"
  [bentoml]="bentoml==1.4.39 numpy==2.4.6"
  [batched]="batched==0.1.5 starlette==1.10.0 uvicorn[standard]==0.54.0 numpy==2.4.6"
)

clear=
if [[ ${1:-} == --clear ]]; then
  clear=1
  shift
fi
if (($# == 0)); then
  set -- mosec litserve bentoml jina jina-pydantic1 batched
fi

if [[ ! -x $root/uv/bin/uv ]]; then
  mkdir -p "$root"
  "$python" -m venv "$root/uv"
  "$root/uv/bin/pip" install -q uv
fi

for name in "$@"; do
  stamp="$root/$name/requirements"
  if [[ -z $clear && -f $stamp && $(<"$stamp") == "${peers[$name]}" ]]; then
    continue
  fi
  echo "installing $name into $root/$name"
  "$root/uv/bin/uv" venv -q --clear --python "$python" "$root/$name"
  # shellcheck disable=SC2086  # one word a requirement
  "$root/uv/bin/uv" pip install -q --python "$root/$name/bin/python" ${peers[$name]}
  printf '%s\n' "${peers[$name]}" >"$stamp"
done
