#!/bin/sh
# Everything that has to be run once a GPU is at hand, with its logs in one folder; nothing here needs a network.
#
#   tools/gpu_check.sh [--out FOLDER] [--part N...] [--seconds S] [--quick]
#
# Part 1: machine code, the tests. Part 2: the sanitizers. Part 3: the kernels' benchmark. Part 4: the path's. Without
# --part all four, in this order; --part 13 is the first and the third. A step that fails does not stop the others; what
# each one came to is in steps.tsv, and the exit status is 1 if any failed, 0 else, 2 for wrong use. --seconds is for all
# of it: a step still running then is stopped (124), one not begun is left out (skipped). See docs/gpu_check.md.
set -u
cd "$(dirname "$0")/.." || exit 2
part=1234 quick= out="${OUT:-out/gpu}" PYTHON="${PYTHON:-python3}" seconds=3600
while [ $# -gt 0 ]; do
    case "$1" in
    --out) out="${2:?--out needs a folder}"; shift 2 ;;
    --part) part="${2:?--part needs a number}"; shift 2 ;;
    --seconds) seconds="${2:?--seconds needs a number}"; shift 2 ;;
    --quick) quick=--quick; shift ;;
    *) echo "usage: tools/gpu_check.sh [--out FOLDER] [--part N...] [--seconds S] [--quick]" >&2; exit 2 ;;
    esac
done
case "$part" in *[!1-4]*) echo "there is no part $part, only 1 to 4" >&2; exit 2 ;; esac
case "$seconds" in *[!0-9]*) echo "--seconds: $seconds is no whole number" >&2; exit 2 ;; esac
mkdir -p "$out" || exit 2
out="$(cd "$out" && pwd)"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
failed=0
end=$(($(date +%s) + seconds))

# step NAME COMMAND...: run it with its output in NAME.log, and note what it came to.
step() {
    name="$1"; shift
    begun=$(date +%s)
    if [ $((end - begun)) -lt 5 ]; then
        printf '%s\tskipped\t0 s\n' "$name" | tee -a "$out/steps.tsv"
        failed=1
        return
    fi
    timeout $((end - begun)) "$@" >"$out/$name.log" 2>&1
    status=$?
    printf '%s\t%s\t%s s\n' "$name" "$status" "$(($(date +%s) - begun))" | tee -a "$out/steps.tsv"
    if [ "$status" -ne 0 ]; then
        failed=1
        tail -n 15 "$out/$name.log"
    fi
}

is() { case "$part" in *"$1"*) ;; *) return 1 ;; esac }

if is 1; then
    step state "$PYTHON" tools/gpu_state.py
    step compile "$PYTHON" tools/gpu_state.py --compile
    step tests env IMMUNOGATE_REQUIRE_GPU=1 "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider --durations=15 \
        tests/gpu tests/kernels tests/runtime/gpu
fi
if is 2; then
    sanitizer="$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)"
    step agree "$PYTHON" tools/sanitize_kernels.py --rounds 4
    for tool in memcheck racecheck initcheck synccheck; do
        # The bindings ask for functions that a driver may not have; only what kernels do is of interest here.
        quiet=
        [ "$tool" = memcheck ] && quiet="--report-api-errors no"
        # shellcheck disable=SC2086
        step "$tool" "${sanitizer:-compute-sanitizer}" --tool "$tool" $quiet --error-exitcode 9 "$PYTHON" \
            tools/sanitize_kernels.py --rounds 1
    done
fi
if is 3; then
    step bench_gpu_kernels "$PYTHON" benchmarks/bench_gpu_kernels.py $quick --out "$out/bench_gpu_kernels.json"
fi
if is 4; then
    step bench_gpu_path "$PYTHON" benchmarks/bench_gpu_path.py $quick --out "$out/bench_gpu_path.json"
fi
exit "$failed"
