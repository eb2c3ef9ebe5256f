#!/usr/bin/env bash
# Run all checks and measurements that need a GPU, the most important first, and write results as they come.
#
#     benchmarks/gpu.sh OUT_DIR [NEMO_PYTHON]
#
# OUT_DIR gets machine.txt, tests.txt, bench.json (updated after every round), bench.txt and transcribe.txt. The time
# limits of all steps add up to three minutes; a step that exceeds its limit keeps its output so far.
# NEMO_PYTHON is the interpreter of an environment with NeMo. Variables: DEVICE (cuda), MODEL (stt_meta_zh_150m, that
# size with random weights), PYTHON (python). Paths are relative to the root of the repository, OUT_DIR to the current
# folder. The package need not be installed. Triton needs a C compiler.
set -uo pipefail
output=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
nemo_python=${2:-}
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
device=${DEVICE:-cuda}
python=${PYTHON:-python}
failed=0

step() { # seconds, file, command: writes the output of the command to the file
    local limit=$1 file=$output/$2 start=$SECONDS
    shift 2
    timeout --kill-after=5 "$limit" "$@" >"$file" 2>&1
    local code=$?
    ((code)) && failed=1
    echo "$(basename "$file"): exit status $code, $((SECONDS - start)) s"
    tail -n 12 "$file"
}

step 10 machine.txt bash -c 'nvidia-smi || true; nproc; cc --version || gcc --version || true; "$0" -c "
from importlib.metadata import distributions
names = {\"torch\", \"triton\", \"transformers\", \"numpy\", \"nemo-toolkit\"}
print(sorted({d.name + \" \" + d.version for d in distributions() if d.name in names}))"' "$python"

tests=()
for name in feature_extraction pipeline optimized_gpu optimized_gpu_graphs training_depthwise bench; do
    tests+=("tests/test_$name.py")
done
workers=() # Most of the time goes into compiling kernels of many kinds, one core each.
"$python" -c "import xdist" 2>/dev/null && workers=(-n "$(($(nproc) < 8 ? $(nproc) : 8))")
step 45 tests.txt "$python" -m pytest -v -rs "${workers[@]}" "${tests[@]}" -k "gpu or cuda or depthwise"

model=${MODEL:-stt_meta_zh_150m}
against=()
[[ -n $nemo_python ]] && against=(--against nemo --nemo-python "$nemo_python")
step 85 bench.txt "$python" -m citrinet.cli bench --model "$model" --device "$device" --output "$output/bench.json" \
    "${against[@]}"

# Many short files: copies of the examples.
clips=$output/clips
mkdir -p "$clips"
for file in examples/*.flac; do
    for copy in {001..150}; do
        ln -sf "$PWD/$file" "$clips/$copy-$(basename "$file")"
    done
done
step 40 transcribe.txt "$python" benchmarks/transcribe.py --model "$model" --folder "$clips" --device "$device" \
    --precision bfloat16 --batch-seconds 640
exit "$failed"
