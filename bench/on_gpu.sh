#!/bin/sh
# On a machine with an NVIDIA GPU, nvcc and a torch with CUDA: builds the extension with its CUDA operators, runs
# their tests with FAIL_WITHOUT_CUDA=1, runs the kernels' benchmark on the GPU, and writes everything as JSON and
# a Markdown table (kernels-cuda.json, .md). Needs no network: what the machine lacks is named at the start.
#
#   bench/on_gpu.sh [RESULTS]     RESULTS: where to write (bench/results/<gpu>-<date>)
#
#   PYTHON=python3    the Python that holds torch, pybind11, numpy, pytest, hypothesis and scipy
#   QUICK=1           short runs
#   SQLITE=FOLDER     SQLite's amalgamation, unpacked, where the machine has no sqlite3.h
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

missing=
for tool in nvcc cmake "${CXX:-c++}" nvidia-smi; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -z "${SQLITE:-}" ]; then
    echo '#include <sqlite3.h>' | "${CXX:-c++}" -x c++ -E - >/dev/null 2>&1 || missing="$missing sqlite3.h(or-SQLITE)"
fi
for module in torch pybind11 setuptools numpy pytest hypothesis scipy rich; do
    "$python" -c "import $module" 2>/dev/null || missing="$missing $module"
done
if [ -n "$missing" ]; then
    echo "on_gpu.sh: missing on this machine:$missing" >&2
    exit 2
fi
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "on_gpu.sh: torch sees no CUDA device" >&2
    exit 2
}

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 | tr 'A-Z ' 'a-z-')
results=${1:-bench/results/$gpu-$(date +%F)}
mkdir -p "$results"
results=$(cd "$results" && pwd)
nvidia-smi >"$results/nvidia-smi.txt"
export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
status=0

# A step's output goes to the screen and to a file; the step that failed is named at the end.
step() {
    name=$1
    shift
    echo "== $name: $*"
    { "$@" 2>&1; echo $? >"$results/.rc"; } | tee "$results/$name.txt"
    if [ "$(cat "$results/.rc")" != 0 ]; then
        echo "== $name: FAILED" | tee -a "$results/FAILED.txt"
        status=1
    fi
    rm -f "$results/.rc"
}

rm -f "$results/FAILED.txt"
if [ -n "${SQLITE:-}" ]; then
    export CMAKE_ARGS="${CMAKE_ARGS:-} -DFETCHCONTENT_SOURCE_DIR_SQLITE_AMALGAMATION=$SQLITE"
fi
step build env RUBRISCOPE_CUDA=1 "$python" setup.py -q build_ext --inplace
ignored=
"$python" -c 'import medpy, monai, surface_distance' 2>/dev/null || {
    ignored=--ignore=tests/python/ops/test_mask.py
    echo "== tests: mask_distance is left out: MONAI, MedPy or surface-distance is missing here"
}
step tests env FAIL_WITHOUT_CUDA=1 "$python" -m pytest -q -p no:cacheprovider tests/python/ops tests/python/test_device.py \
    -k cuda $ignored
step bench "$python" bench/kernels.py --device cuda ${QUICK:+--quick} --out "$results"
echo "Results: $results"
exit $status
