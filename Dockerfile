# syntax=docker/dockerfile:1
# The gateway alone on a slim Debian: no shell scripts, no curl, no package added. `make image` builds and tries it.
#   docker build -t mcp-gateway .
#   docker run --read-only -p 8080:8080 -e GATEWAY_HOST=0.0.0.0 -e DEMO_STATE_DIR=/var/lib/mcp-gateway mcp-gateway demo

FROM rust:1.95.0-slim-bookworm AS build
# What CONTRIBUTING.md names: zlib-ng needs cmake, C++ is for its compiler check. Versions are those of the tag's Debian.
# hadolint ignore=DL3008
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends cmake g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Both mounts outlive the build, so a change of the source compiles the gateway alone; the binary must leave them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo cargo build --release --locked --bin mcp-gateway \
 && cp target/release/mcp-gateway /mcp-gateway

FROM debian:12.15-slim
LABEL org.opencontainers.image.title="mcp-gateway" \
      org.opencontainers.image.description="One entry point in front of a company's MCP servers" \
      org.opencontainers.image.licenses="Apache-2.0"
# The authorities that https:// backends and identity providers are verified against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /mcp-gateway /usr/local/bin/mcp-gateway
# The only place that is written to; a volume made from it belongs to the user below and to nobody else, or no secret would
# be kept in it.
RUN install -d -m 0700 -o 65532 -g 65532 /var/lib/mcp-gateway
VOLUME /var/lib/mcp-gateway
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# Liveness, not readiness: a gateway whose backends are down must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/local/bin/mcp-gateway", "health"]
ENTRYPOINT ["/usr/local/bin/mcp-gateway"]
