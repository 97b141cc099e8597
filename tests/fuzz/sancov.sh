#!/bin/sh
# RUSTC_WORKSPACE_WRAPPER of run.sh: compiles the workspace's own crates, and not what they depend on, with the coverage
# counters and traced comparisons libFuzzer is guided by. All of it is stable rustc: an LLVM pass and its options.
case " $* " in
*" --crate-name build_script_"*) exec "$@" ;;
esac
exec "$@" -Ccodegen-units=1 -Copt-level=1 \
	-Cpasses=sancov-module \
	-Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
