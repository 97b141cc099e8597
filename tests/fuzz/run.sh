#!/usr/bin/env bash
# Runs the fuzz targets: tests/fuzz/run.sh [seconds for each target, 10] [target…, all]. What a run finds of interest is
# kept in target/fuzz-corpus, so that the next run goes on from there; the seeds in tests/fuzz/corpus stay as they are.
set -euo pipefail
cd "$(dirname "$0")/../.."

seconds=${1:-10}
shift || true
# libFuzzer takes 0, and what is no number, for no end.
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { sed -n 2,3p "tests/fuzz/run.sh" >&2; exit 2; }
targets=("$@")
[ $# -gt 0 ] || for file in tests/fuzz/src/bin/*.rs; do targets+=("$(basename "$file" .rs)"); done
out=${CARGO_TARGET_DIR:-target}

# Only our own crates are instrumented; the dependencies are those that `cargo test --workspace` has compiled. Without
# `--workspace` cargo would choose other features for them and compile them again.
RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/sancov.sh cargo build --locked --workspace "${targets[@]/#/--bin=}"

# Runs one target; what libFuzzer says goes to the log.
fuzz() {
	local corpus=$out/fuzz-corpus/$1 artifacts=$out/fuzz-artifacts/$1 dict=()
	mkdir -p "$corpus" "$artifacts"
	case $1 in json_rpc | headers | edit) dict=(-dict=tests/fuzz/json.dict) ;; esac
	# Counting how often a place was passed would keep five times the inputs, each tried a fifth as often.
	RUST_BACKTRACE=0 "$out/debug/$1" -max_total_time="$seconds" -max_len=512 -use_counters=0 -timeout=5 -rss_limit_mb=1024 \
		-artifact_prefix="$artifacts/" "${dict[@]}" "$corpus" "tests/fuzz/corpus/$1" >"$artifacts/log" 2>&1
}

failed=()
for target in "${targets[@]}"; do
	log=$out/fuzz-artifacts/$target/log
	if ! fuzz "$target"; then
		failed+=("$target")
		grep -avE '^#|^WARNING: Failed to find function' "$log" | tail -n 30 >&2
		found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
		echo "fuzz: $target FAILED on ${found:-(no input, see $log)}" >&2
		echo "fuzz: to see it again: $out/debug/$target $found" >&2
		echo "fuzz: to make it smaller: $out/debug/$target -minimize_crash=1 -max_total_time=60 $found" >&2
	elif ! grep -aq 'inline 8-bit counters' "$log"; then
		failed+=("$target")
		echo "fuzz: $target FAILED: it is not instrumented" >&2
	else
		echo "fuzz: $target: $(grep -a 'DONE' "$log")"
	fi
done
[ ${#failed[@]} = 0 ] || { echo "fuzz: FAILED: ${failed[*]}" >&2; exit 1; }
