#!/bin/sh
# Everything that needs an NVIDIA GPU, in one go:
#   benchmarks/cuda_all.sh [FOLDER]     (default: cuda_report)
# builds the kernels, runs the cuda tests, compute-sanitizer and the benchmarks. Each step writes
# FOLDER/STEP.log and the summary says which of them failed; the exit status is their number.
# $PYTHON: the interpreter, with this project installed (default: python).
cd "$(dirname "$0")/.." || exit 99
PYTHON=${PYTHON:-python}
REPORT=${1:-cuda_report}
mkdir -p "$REPORT" || exit 99
failed=0

step() {
  name=$1
  shift
  printf '%-12s ' "$name"
  started=$(date +%s)
  if "$@" > "$REPORT/$name.log" 2>&1; then result=ok; else result=FAILED; failed=$((failed + 1)); fi
  echo "$result, $(($(date +%s) - started)) s: $(tail -n 1 "$REPORT/$name.log" | cut -c 1-100)"
}

skip() {
  printf '%-12s skipped: %s\n' "$1" "$2"
}

step machine nvidia-smi
step kernels "$PYTHON" -c "
import sys, torch
from render.kbuffer import cuda_build
found = cuda_build.load(0) if torch.cuda.is_available() else None
print(cuda_build.status(0))
sys.exit(found is None)"
if [ $failed -gt 0 ]; then
  echo "no GPU, or no kernels for it: nothing more to do (logs: $REPORT)"
  exit $failed
fi

KBUFFERS_CUDA_CHECK=1
export KBUFFERS_CUDA_CHECK
step compile "$PYTHON" -m pytest -q -rs tests/kbuffer/test_cuda_compile.py
step emulator "$PYTHON" -m pytest -q -rs tests/kbuffer/test_cuda_emulator.py \
  tests/kbuffer/test_cuda_build.py
step tests "$PYTHON" -m pytest -q -rs -m cuda

SANITIZER=$(command -v compute-sanitizer || ls "${CUDA_HOME:-/usr/local/cuda}"/bin/compute-sanitizer 2> /dev/null)
if [ -n "$SANITIZER" ]; then
  # Without torch's cache every scratch block is an allocation of its own, whose ends are watched.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1
  export PYTORCH_NO_CUDA_MEMORY_CACHING
  for tool in memcheck racecheck synccheck initcheck; do
    step "$tool" "$SANITIZER" --tool "$tool" --error-exitcode 1 --target-processes all \
      "$PYTHON" -m pytest -q -m cuda tests/kbuffer/test_cuda_gpu.py -k "small_frames or unusual"
  done
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
else
  skip sanitizer "compute-sanitizer not found"
fi

step rasterize "$PYTHON" -m benchmarks.rasterize_cuda
KBUFFERS_CUDA=nvrtc
export KBUFFERS_CUDA
step nvrtc "$PYTHON" -m benchmarks.rasterize_cuda --quick
unset KBUFFERS_CUDA
cat "$REPORT/rasterize.log"
echo "$failed failed; logs: $REPORT"
exit $failed
