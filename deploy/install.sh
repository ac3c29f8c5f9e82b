#!/bin/sh
# install.sh WHEEL CONSTRAINTS: installs the project's wheel for the Python that `python` is, with what a cluster needs.
# TORCH_INDEX may name an index of torch's builds, as https://download.pytorch.org/whl/cpu. It is asked for torch alone.
set -eu
wheel=$1
constraints=$2
if [ -n "${TORCH_INDEX:-}" ]; then
    python -m pip install --constraint "$constraints" --extra-index-url "$TORCH_INDEX" torch
fi
python -m pip install --constraint "$constraints" "$wheel[postgres,server]"
