#!/usr/bin/env bash
# Generates scheduler/v1 from the protos beside this script.
#   protos/generate.sh          write the code
#   protos/generate.sh --check  compare what is committed with a fresh generation
# PYTHON names the interpreter whose grpcio-tools is used (default .venv/bin/python).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
package=scheduler/v1

generate() {
  "$python" -m grpc_tools.protoc -Iprotos \
    --python_out="$1" --pyi_out="$1" --grpc_python_out="$1" \
    "protos/$package/scheduler.proto"
}

case ${1-} in
"")
  generate .
  ;;
--check)
  fresh=$(mktemp -d)
  trap 'rm -rf "$fresh"' EXIT
  generate "$fresh"
  cp "$package/__init__.py" "$fresh/$package/"
  if ! diff -r -x __pycache__ "$fresh/$package" "$package"; then
    echo "$package is not what protos/ generates: run protos/generate.sh" >&2
    exit 1
  fi
  ;;
*)
  echo "usage: protos/generate.sh [--check]" >&2
  exit 2
  ;;
esac
