# The commands of the README. On a fresh Debian with a Rust toolchain each installs what it needs; elsewhere it says
# what is missing.

.PHONY: demo test check parts bench fuzz image tools

# pingora builds zlib-ng, which needs cmake and a C compiler; libFuzzer is C++.
TOOLS = cc c++ make cmake
PACKAGES = gcc g++ make cmake libc6-dev
# For each fuzz target.
SECONDS = 300

## Run the gateway in front of a built-in MCP server; built with less optimisation than a release, which takes longer
demo: tools
	CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=4 cargo run --release --locked --bin mcp-gateway -- demo

## Run every test
test: tools parts check
	cargo test --workspace --locked
	tests/fuzz/run.sh 5

## Fuzz everything that reads a stranger's bytes, SECONDS for each target
fuzz: tools
	tests/fuzz/run.sh $(SECONDS)

## Build the container image and try it: a release build, and root on Debian, but no container engine
image:
	tests/image.sh

## Formatting and lints
check: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

## Measure the gateway beside a bare Pingora proxy and nginx
bench: tools
	@command -v nginx >/dev/null || $(MAKE) --no-print-directory install PACKAGES=nginx
	@command -v redis-server >/dev/null || $(MAKE) --no-print-directory install PACKAGES=redis-server
	cargo build --release --locked --bin mcp-gateway
	cargo run --release --locked -p bench

## Install the real MCP servers and clients the tests run against
parts:
	tests/parts/install.sh

tools:
	@for tool in $(TOOLS); do command -v $$tool >/dev/null || missing=yes; done; \
	if [ -n "$$missing" ]; then $(MAKE) --no-print-directory install; fi

.PHONY: install
install:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(PACKAGES); \
	else \
		echo "missing: one of $(TOOLS) or $(PACKAGES); install them and try again" >&2; exit 1; \
	fi
