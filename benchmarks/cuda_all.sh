#!/bin/sh
# Everything that an NVIDIA GPU has to show, in one go, from anywhere:
#   benchmarks/cuda_all.sh [FOLDER [PART ...]]     (default: all parts, into cuda_report)
# Parts without a GPU: compile, emulator. With one: machine, kernels, tests, memcheck, racecheck,
# synccheck, initcheck, rasterize, nvrtc, gaussians, frame, gsplat.
# Each part writes FOLDER/PART.log, whatever happened to the others; FOLDER/summary.txt has a line
# for each of them, and the exit status is the number that failed. A part that takes longer than
# $PART_SECONDS (default 900) is ended. $PYTHON: the interpreter, with this project installed.
cd "$(dirname "$0")/.." || exit 99
PYTHON=${PYTHON:-python}
REPORT=${1:-cuda_report}
[ $# -gt 0 ] && shift
PARTS=" $* "
mkdir -p "$REPORT" || exit 99
: > "$REPORT/summary.txt"
failed=0
GPU_MISSING=$("$PYTHON" -c "
import torch
print('' if torch.cuda.is_available() else 'torch finds no GPU')" 2>&1 | tail -n 1)
limit=""
command -v timeout > /dev/null 2>&1 && limit="timeout ${PART_SECONDS:-900}"

wanted() {
  case $PARTS in "  " | *" $1 "*) return 0 ;; *) return 1 ;; esac
}

say() {
  printf '%-10s %s\n' "$1" "$2" | tee -a "$REPORT/summary.txt"
}

step() { # NAME COMMAND...
  name=$1
  shift
  wanted "$name" || return 0
  started=$(date +%s)
  # shellcheck disable=SC2086 # two words, or none
  $limit "$@" > "$REPORT/$name.log" 2>&1
  code=$?
  result=ok
  [ $code -eq 0 ] || result="FAILED ($code)"
  [ $code -eq 0 ] || failed=$((failed + 1))
  say "$name" "$result, $(($(date +%s) - started)) s: $(tail -n 1 "$REPORT/$name.log" | cut -c 1-100)"
}

on_gpu() { # NAME COMMAND...
  if [ -z "$GPU_MISSING" ]; then
    step "$@"
  elif wanted "$1"; then
    say "$1" "skipped: $GPU_MISSING"
  fi
}

module() { # NAME ARGUMENT...: a benchmark of ours, where there is one of that name
  part=$1 file=$2
  shift 2
  if [ -f "benchmarks/$file.py" ]; then
    on_gpu "$part" "$PYTHON" -m "benchmarks.$file" "$@"
  fi
}

KBUFFERS_CUDA_CHECK=1
export KBUFFERS_CUDA_CHECK
step compile "$PYTHON" -m pytest -q -rs tests/kbuffer/test_cuda_compile.py
step emulator "$PYTHON" -m pytest -q -rs tests/kbuffer/test_cuda_emulator.py \
  tests/kbuffer/test_cuda_build.py

on_gpu machine nvidia-smi
on_gpu kernels "$PYTHON" -c "
import sys
from render.kbuffer import cuda_build
found = cuda_build.load(0)
print(cuda_build.status(0))
sys.exit(found is None)"
on_gpu tests "$PYTHON" -m pytest -q -rs -m cuda

SANITIZER=$(command -v compute-sanitizer)
for place in "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer" \
  "${CUDA_HOME:-/usr/local/cuda}/compute-sanitizer/compute-sanitizer"; do
  [ -n "$SANITIZER" ] || [ ! -x "$place" ] || SANITIZER=$place
done
for tool in memcheck racecheck synccheck initcheck; do
  if [ -n "$SANITIZER" ] || [ -n "$GPU_MISSING" ]; then
    # Without torch's cache every scratch block is an allocation of its own, whose ends are watched.
    on_gpu $tool env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$SANITIZER" --tool $tool \
      --error-exitcode 1 --target-processes all \
      "$PYTHON" -m pytest -q -m cuda tests/kbuffer -k "small or unusual"
  elif wanted $tool; then
    say $tool "skipped: compute-sanitizer not found"
  fi
done

module rasterize rasterize_cuda
if wanted nvrtc; then
  KBUFFERS_CUDA=nvrtc
  export KBUFFERS_CUDA
  module nvrtc rasterize_cuda --quick
  unset KBUFFERS_CUDA
fi
module gaussians gaussians_cuda
module frame frame --device cuda
# Trains six models for a minute each; gsplat compiles itself in some minutes the first time.
module gsplat gsplat_compare --json "$REPORT/gsplat.json"

echo "$failed failed; logs: $REPORT"
exit $failed
