#!/usr/bin/env bash
# Registers the gateway with a running Kong by its Admin API; what is there already is replaced, so run it as often as you like.
#   KONG_ADMIN=http://localhost:8001 GATEWAY=http://mcp-gateway:8080 conf/kong/register.sh
set -euo pipefail
kong=${KONG_ADMIN:-http://localhost:8001} gateway=${GATEWAY:-http://mcp-gateway:8080}

put() { curl -fsS -o /dev/null -X PUT "$kong$1" -H 'Content-Type: application/json' -d @- && echo "put $1"; }

# Why each value is what it is: kong.yaml.
put /services/mcp-gateway <<JSON
{ "url": "$gateway", "connect_timeout": 3000, "write_timeout": 660000, "read_timeout": 660000, "retries": 0 }
JSON
put /services/mcp-gateway/routes/mcp-gateway <<JSON
{ "paths": ["/api", "/mcp", "/.well-known/oauth-protected-resource", "/docs", "/openapi.json"], "protocols": ["http", "https"],
  "strip_path": false, "preserve_host": true, "request_buffering": true, "response_buffering": false }
JSON
# A plugin has no name of its own: this id is as good as any.
put /services/mcp-gateway/plugins/0d6a3a52-5f0e-4c1b-9d5e-8f7a1c2b3d4e <<JSON
{ "name": "correlation-id", "config": { "header_name": "X-Request-ID", "generator": "uuid", "echo_downstream": false } }
JSON
